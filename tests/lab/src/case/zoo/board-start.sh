#!/bin/sh
# Starts the zoo: the last script before the capture.

[ "$1" = start ] || exit 0

export ZOO_PACE=@PACE@
at=/tmp/zoo

# Its place, where also an ordinary user may make files.
place() {
	mkdir -p "$at/$1"
	chmod 777 "$at/$1"
}

# Waits until a program has said that it is ready, or that it has ended.
until_ready() {
	n=0
	until grep -qE '^(READY|SKIP|FAIL)' "$at/$1/log"; do
		n=$((n + 1))
		if [ $n -gt 300 ]; then
			echo "zoo: $1 is not ready: $(tail -n 1 "$at/$1/log")"
			return
		fi
		usleep 100000
	done
}

# What may be refused is looked at by itself. The look has the program's own descriptors 0 to 2.
look() {
	place "$1"
	{
		setsid "/opt/zoo/$1" "$at/$1/go" &
		until_ready "$1"
		if grep -q '^READY' "$at/$1/log" && ! /sbin/rcsnap check --tree $!; then
			: >"$at/$1/go"
			n=0
			until grep -qE '^(PASS|FAIL)' "$at/$1/log" || [ $n -gt 200 ]; do
				n=$((n + 1))
				usleep 100000
			done
			echo "plain: $(grep -E '^(PASS|FAIL)' "$at/$1/log")"
			# As the last word: by which obstacle.
			echo "REFUSED: $(grep '^obstacle: ' "$at/$1/log" | head -n 1)"
		fi
	} </dev/null >"$at/$1/log" 2>&1
	echo "zoo: looked at $1: $(tail -n 1 "$at/$1/log")"
}

start() {
	place "$1"
	setsid "/opt/zoo/$1" "$at/$1/go" </dev/null >"$at/$1/log" 2>&1 &
}

# Starts all at the same time.
start_all() {
	for name; do
		start "$name"
	done
	for name; do
		until_ready "$name"
	done
}

mkdir -p $at
for name in @REFUSABLE@; do
	look $name
done
start_all @PLAIN@
echo "zoo: time runs"
start_all @TIMED@
for name in @SPINNING@; do
	start $name
	until_ready $name
done
