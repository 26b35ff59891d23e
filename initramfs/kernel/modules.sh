#!/bin/sh
# The modules that rcsnap loads before it mounts the root, for CONFIG_INITRAMFS_SOURCE.
#
#	modules.sh ROOT RELEASE FILE MODULE...
#
# ROOT holds lib/modules/RELEASE with its modules.dep. FILE becomes /lib/rcsnap/modules: the modules and what
# they need, in the order of loading. On standard output comes a list for usr/gen_init_cpio.c.
set -eu

if [ $# -lt 4 ]; then
	sed -n 's/^#\t/usage: /p' "$0" >&2
	exit 2
fi
root=${1%/}
release=$2
file=$(realpath "$3")
shift 3

PATH=$PATH:/usr/sbin:/sbin
# Lines are "insmod PATH" and "builtin NAME"; what two modules need comes twice.
found=$(modprobe --dirname="$root/" --set-version="$release" --config=/dev/null --all --show-depends "$@")
echo "$found" | sed -n 's|^insmod .*\(/lib/modules/[^ ]*\).*|\1|p' | awk '!seen[$0]++' >"$file"

echo "dir /lib 755 0 0"
echo "dir /lib/rcsnap 755 0 0"
echo "file /lib/rcsnap/modules $file 644 0 0"
while read -r module; do
	folder=$(dirname "$module")
	folders=
	while [ "$folder" != / ]; do
		folders="dir $folder 755 0 0
$folders"
		folder=$(dirname "$folder")
	done
	printf '%s' "$folders"
	echo "file $module $root$module 644 0 0"
done <"$file" | awk '!seen[$0]++'
