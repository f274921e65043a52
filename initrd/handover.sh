# shellcheck shell=sh
# What the image's own system finds: its name and resolver in the overlay, and the agent in /run.
# Sourced by init; fail and say come from there.
# shellcheck disable=SC2154  # name, image: parameters.sh; address, dns: parameters.sh or network.sh

FILES_PORTS=${FILES_PORTS:-600-1023}

# Tell the system below directory $1 who it is: hostname(5), hosts(5), resolv.conf(5).
write_identity() {
    echo "$name" >"$1/etc/hostname" || fail mount "cannot write to the overlay"
    printf '%s %s\n' "${address%/*}" "$name" >>"$1/etc/hosts"
    [ -n "$dns" ] || return 0
    rm -f "$1/etc/resolv.conf" # often a link into a /run that does not exist yet
    echo "$dns" | tr ',' '\n' | sed 's/^/nameserver /' >"$1/etc/resolv.conf"
}

# Fetch this node's files from the server into FILE, however long it is away; fails only for what waiting does not
# mend. The server gives them to ports below 1024 only, which are root's: our URL can be read in /proc/cmdline.
fetch_files() {
    fetch_failures=0
    while :; do
        fetch_http=$(umask 077 && ask_server /overlay -o "$1" --local-port "$FILES_PORTS" --max-time 60)
        fetch_http=${fetch_http##*"$NEWLINE"}
        case $fetch_http in
            200) return ;;
            403) fail config "the server refuses this node its files (HTTP 403)" ;;
            4??) fail config "$(sed -n 1p "$1")" ;;
        esac
        fetch_failures=$((fetch_failures + 1))
        fetch_pause=$(jittered "$(pause_after $fetch_failures 1 8)")
        say "root: the server does not give this node's files (HTTP $fetch_http); asking again in $fetch_pause s"
        sleep "$fetch_pause"
    done
}

# Lay this node's files over the system below directory $1. They are unpacked from inside it, so that its links
# lead where they lead there, users are its own, and nothing is written outside.
lay_files() {
    fetch_files "$PXEBOOT_RUN/files.tar"
    cp /bin/busybox "$1/busybox.pxeboot" || fail mount "cannot write to the overlay"
    chroot "$1" /busybox.pxeboot tar xf - <"$PXEBOOT_RUN/files.tar" 2>"$PXEBOOT_RUN/files.err" ||
        fail config "cannot unpack this node's files: $(sed -n 1p "$PXEBOOT_RUN/files.err")"
    rm -f "$1/busybox.pxeboot" "$PXEBOOT_RUN/files.tar" "$PXEBOOT_RUN/files.err"
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
