#!/bin/sh
# Tells the programs to go on, waits for them, and says the last word of each.

for folder in /tmp/zoo/*; do
	: >"$folder/go"
done
n=0
for folder in /tmp/zoo/*; do
	until grep -qE '^(PASS|FAIL|SKIP|REFUSED)' "$folder/log" || [ $n -gt 1500 ]; do
		n=$((n + 1))
		usleep 100000
	done
	# What a program says before its last word explains it.
	word=$(grep -E '^(PASS|FAIL|SKIP|REFUSED)' "$folder/log" | tail -n 1)
	echo "zoo: ${folder##*/}: ${word:-$(tail -n 1 "$folder/log")}"
	grep '^note: ' "$folder/log"
done
true
