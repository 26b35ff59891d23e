#!/bin/bash
# rcsnap as /init of an image of dracut. The folder goes to /usr/lib/dracut/modules.d.
#
# rcsnap comes before everything else of the image and mounts root= itself. It loads what force_drivers names,
# with what that needs, in that order; nothing looks for hardware. The image's own /init, if there is one, stays
# as /init.dracut: rdinit=/init.dracut on the kernel command line boots by it. Its number puts this module after
# base, which installs that /init.

# called by dracut
check() {
    require_binaries /sbin/rcsnap || return 1
    # Only where dracutmodules or add_dracutmodules asks for it.
    return 255
}

# called by dracut
depends() {
    return 0
}

# called by dracut
install() {
    if [[ -e ${initdir:?}/init || -L $initdir/init ]]; then
        mv "$initdir/init" "$initdir/init.dracut"
    fi
    inst_binary /sbin/rcsnap /init
    mkdir -p "$initdir/lib/rcsnap"
    : > "$initdir/lib/rcsnap/modules"
}

# called by dracut
installkernel() {
    local list=$initdir/lib/rcsnap/modules verb file parameters module
    # shellcheck disable=SC2154 # dracut's
    if [[ -z ${force_drivers// /} ]]; then
        dinfo "rcsnap: force_drivers is empty: the kernel must have the root's drivers built in"
        return 0
    fi
    for module in $force_drivers; do
        # shellcheck disable=SC2034 # read by instmods
        hostonly='' instmods -c "$module" || return 1
        # The lines that are not insmod say builtin.
        # shellcheck disable=SC2154 # dracut's
        while read -r verb file parameters; do
            [[ $verb == insmod ]] || continue
            cut -d ' ' -f 1 "$list" | grep -qxF "$file" || echo "$file${parameters:+ $parameters}" >> "$list"
        done < <(modprobe --dirname="${dracutsysrootdir:-}/" --set-version="$kernel" --ignore-install \
            --show-depends "$module")
    done
}
