#!/bin/sh
# Adds the line that says that the rc scripts are done to an inittab, once:
# behind the line that runs them, so that it comes before the gettys.
# A line that somebody put there, or put out with a #, stays as it is.
set -e
set -u

INITTAB="$1"
READY="/sbin/rcsnap ready"

if grep -q "${READY}" "${INITTAB}"; then
	exit 0
fi
# Only sysvinit's has an initdefault; there an entry has a name and runlevels.
if grep -q ":initdefault:" "${INITTAB}"; then
	LINE="rdy:12345:wait:${READY}"
else
	LINE="::wait:${READY}"
fi
if ! grep -q "^[^#].*/etc/init.d/rcS" "${INITTAB}"; then
	echo "${INITTAB}: no line runs /etc/init.d/rcS, add ${LINE} where the scripts end" >&2
	exit 1
fi
sed -i "\|^[^#].*/etc/init.d/rcS|a ${LINE}" "${INITTAB}"
