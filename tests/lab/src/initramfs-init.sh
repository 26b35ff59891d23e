#!/bin/sh
# Stands in for a kernel with its drivers built in: the root gets mounted and init= started.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
while read -r module; do
	$b insmod "$module"
done </lib/rcsnap/modules
init=/sbin/init
# shellcheck disable=SC2013 # words are what is wanted
for word in $($b cat /proc/cmdline); do
	case "$word" in
		init=*) init=${word#init=};;
		root=*) root=${word#root=};;
		rootfstype=*) type=${word#rootfstype=};;
	esac
done
while [ ! -b "$root" ]; do
	$b usleep 10000
done
$b mount -o ro -t "$type" "$root" /root
$b mount --move /dev /root/dev
$b umount /proc
exec $b switch_root /root "$init" "$@"
