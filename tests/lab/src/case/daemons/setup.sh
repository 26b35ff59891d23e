# The board before its first script: /etc and /var from the packages, device nodes, users, the loopback device.
# Run in the new root; users of the daemon are the arguments.
cp -a /usr/share/board/etc/. /etc
cp -a /usr/share/board/var/. /var
mkdir -p /var/tmp /var/lock /var/log /var/spool /run/lock /etc/pam.d /dev/shm /dev/pts
chmod 1777 /tmp /var/tmp /run/lock /dev/shm
rm -rf /var/run && ln -s /run /var/run
for node in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do
    set -f
    (set -- $node; rm -f "/dev/$1"; mknod -m 666 "/dev/$1" c "$2" "$3")
    set +f
done
ln -sf /proc/self/fd /dev/fd
cp /usr/share/base-passwd/passwd.master /etc/passwd
cp /usr/share/base-passwd/group.master /etc/group
id=201
for user in "$@"; do
    echo "$user:x:$id:$id::/nonexistent:/bin/sh" >> /etc/passwd
    echo "$user:x:$id:" >> /etc/group
    id=$((id + 1))
done
sed 's/:.*/:*:19000:0:99999:7:::/' /etc/passwd > /etc/shadow
chmod 600 /etc/shadow
for service in auth account session password; do
    echo "$service required pam_permit.so" > "/etc/pam.d/common-$service"
    cp "/etc/pam.d/common-$service" "/etc/pam.d/common-$service-noninteractive"
    echo "$service required pam_permit.so" >> /etc/pam.d/other
done
printf 'passwd: files\ngroup: files\nhosts: files dns\n' > /etc/nsswitch.conf
printf '127.0.0.1 localhost board\n' > /etc/hosts
printf '/bin/sh\n/bin/bash\n' > /etc/shells
echo 0123456789abcdef0123456789abcdef > /etc/machine-id
busybox hostname board
