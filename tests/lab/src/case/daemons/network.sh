# The network of a board without a cable: the loopback device, and a device with an address where the kernel has one
# to offer. The same every time, so that a fresh network namespace is what the next boot has.
busybox ip link set lo up
if ip link add eth0 type bridge; then
    ip address add 198.51.100.1/24 dev eth0
    ip link set eth0 up
fi
