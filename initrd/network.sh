# shellcheck shell=sh
# From "no driver loaded" to "this interface has an address". Sourced by init; fail and say come from there.
# shellcheck disable=SC2154  # bootif, address, router, dns: parameters.sh

CARRIER_PATIENCE_S=300 # STP takes 30-50 s, LACP and slow PHYs add to it (a wrong cable takes for ever: retried)
BOOTIF_PATIENCE_S=30   # for the driver of the interface the firmware booted from
DHCP_PATIENCE_S=300
SYS_NET=${SYS_NET:-/sys/class/net}

# Load a driver for every device there is, and again for those that the first drivers bring (virtio, USB).
load_modules() {
    modprobe -a -q squashfs overlay loop af_packet virtio_rng
    modules_known=''
    for modules_round in 1 2 3 4; do
        modules_found=$(cat /sys/bus/*/devices/*/modalias 2>/dev/null | sort -u)
        [ "$modules_found" != "$modules_known" ] || return 0
        modules_known=$modules_found
        # shellcheck disable=SC2086  # one alias a word; a device without a driver of ours is no fault
        modprobe -a -b -q $modules_found 2>/dev/null
    done
    say "network: devices keep appearing, going on after $modules_round rounds"
}

# Print the interfaces with hardware behind them.
interfaces() {
    for interfaces_path in "$SYS_NET"/*; do
        [ ! -e "$interfaces_path/device" ] || echo "${interfaces_path##*/}"
    done
}

# Print the interface whose MAC address is $1, or fail.
interface_by_mac() {
    for by_mac_path in "$SYS_NET"/*; do
        [ -e "$by_mac_path/device" ] || continue
        read -r by_mac_address <"$by_mac_path/address" || continue
        [ "$by_mac_address" = "$1" ] && echo "${by_mac_path##*/}" && return
    done
    return 1
}

# Has interface $1 a link? The file cannot be read while the interface is down.
has_carrier() {
    read -r carrier 2>/dev/null <"$SYS_NET/$1/carrier" && [ "$carrier" = 1 ]
}

# Print the first of the interfaces given that has a link, or fail.
first_with_carrier() {
    for first_interface in "$@"; do
        has_carrier "$first_interface" && echo "$first_interface" && return
    done
    return 1
}

# Print the interfaces worth waiting for: the one of BOOTIF, or all.
candidates() {
    if [ -n "$bootif" ]; then
        candidates_mac=$(bootif_mac "$bootif")
        candidates_until=$(($(uptime_s) + BOOTIF_PATIENCE_S))
        while [ "$(uptime_s)" -lt "$candidates_until" ]; do
            interface_by_mac "$candidates_mac" && return
            sleep 0.2
        done
        say "network: no interface has the address $candidates_mac of BOOTIF, taking the first with a link" >&2
    fi
    interfaces
}

# Set $interface to the interface to boot from, once it has a link.
wait_for_link() {
    links=$(candidates)
    [ -n "$links" ] || fail network "no network interface found; is its driver in the initrd?"
    for link in $links; do
        ip link set "$link" up || say "network: cannot switch $link on"
    done
    link_began=$(uptime_s) link_told=0
    # shellcheck disable=SC2086  # one interface a word
    until interface=$(first_with_carrier $links); do
        link_waited=$(($(uptime_s) - link_began))
        [ "$link_waited" -lt $CARRIER_PATIENCE_S ] ||
            fail network "no link on" $links "for $link_waited s; is the cable in, the switch port up?"
        if [ $((link_waited - link_told)) -ge 5 ]; then
            say "network: no link on" $links "for $link_waited s"
            link_told=$link_waited
        fi
        sleep 0.1
    done
}

# Ask for an address on $interface until one comes; sets address, router, dns.
ask_dhcp() {
    dhcp_until=$(($(uptime_s) + DHCP_PATIENCE_S)) dhcp_failures=0
    rm -f "$PXEBOOT_RUN/lease"
    until [ -s "$PXEBOOT_RUN/lease" ]; do
        say "network: asking for an address on $interface"
        udhcpc -i "$interface" -n -q -f -t 4 -T 2 -s "$PXEBOOT_LIB/udhcpc" >/dev/null 2>&1
        [ ! -s "$PXEBOOT_RUN/lease" ] || break
        dhcp_failures=$((dhcp_failures + 1))
        [ "$(uptime_s)" -lt "$dhcp_until" ] ||
            fail network "no DHCP server answered on $interface for $DHCP_PATIENCE_S s"
        sleep "$(jittered "$(pause_after $dhcp_failures 2 30)")"
    done
    # shellcheck source=/dev/null
    . "$PXEBOOT_RUN/lease"
}

# Give $interface its address and route, and write both down for the running system.
configure_address() {
    ip addr flush dev "$interface"
    ip addr add "$address" broadcast + dev "$interface" || fail network "cannot set address $address on $interface"
    [ -z "$router" ] || ip route replace default via "$router" dev "$interface" ||
        fail network "cannot set the route through $router on $interface"
    printf 'interface=%s\naddress=%s\nrouter=%s\ndns=%s\n' "$interface" "$address" "$router" "$dns" \
        >"$PXEBOOT_RUN/network.new"
    mv "$PXEBOOT_RUN/network.new" "$PXEBOOT_RUN/network"
}

# Bring the network up; a later attempt keeps what an earlier one made, as long as the link holds.
bring_network_up() {
    if [ -s "$PXEBOOT_RUN/network" ]; then
        # shellcheck source=/dev/null
        . "$PXEBOOT_RUN/network"
        has_carrier "$interface" && return
        rm -f "$PXEBOOT_RUN/network"
    fi
    wait_for_link
    [ -n "$address" ] || ask_dhcp
    configure_address
    read -r mac <"$SYS_NET/$interface/address"
    say "network: $interface ($mac) has address $address"
    report network "$interface $address $mac"
}
