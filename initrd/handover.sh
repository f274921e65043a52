# shellcheck shell=sh
# What the image's own system finds: its name and resolver in the overlay, and the agent in /run.
# Sourced by init; fail and say come from there.
# shellcheck disable=SC2154  # name, image: parameters.sh; address, dns: parameters.sh or network.sh

# Tell the system below directory $1 who it is: hostname(5), hosts(5), resolv.conf(5).
write_identity() {
    echo "$name" >"$1/etc/hostname" || fail mount "cannot write to the overlay"
    printf '%s %s\n' "${address%/*}" "$name" >>"$1/etc/hosts"
    [ -n "$dns" ] || return 0
    rm -f "$1/etc/resolv.conf" # often a link into a /run that does not exist yet
    echo "$dns" | tr ',' '\n' | sed 's/^/nameserver /' >"$1/etc/resolv.conf"
}

# Without udev no device ever shows up in systemd, which would wait 90 s for a serial console's before it is up.
# systemd-getty-generator asks for such a getty wherever the kernel has console=ttyS0.
spare_serial_getty() {
    [ ! -e "$1/lib/systemd/systemd-udevd" ] || return 0
    mkdir -p /run/systemd/system
    ln -sf /dev/null /run/systemd/system/serial-getty@.service
}

# Put the agent, the programs it needs and its unit where they outlive switch_root, outside the image's files.
place_agent() {
    echo "$image" >"$PXEBOOT_RUN/image"
    rm -f "$PXEBOOT_RUN/curl.err"
    cp "$PXEBOOT_LIB/agent" "$PXEBOOT_LIB/report.sh" "$PXEBOOT_LIB/services.sh" /bin/busybox /bin/curl "$PXEBOOT_RUN/" &&
        mkdir -p /run/systemd/system/multi-user.target.wants &&
        cp "$PXEBOOT_LIB/pxeboot-agent.service" /run/systemd/system/ &&
        ln -sf ../pxeboot-agent.service /run/systemd/system/multi-user.target.wants/
}
