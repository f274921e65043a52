# shellcheck shell=sh
# From "no driver loaded" to "this interface has an address". Sourced by init; fail and say come from there.
# shellcheck disable=SC2154  # bootif, bond, bond_members, vlan, address, router, dns: parameters.sh

CARRIER_PATIENCE_S=300 # STP takes 30-50 s, LACP and slow PHYs add to it (a wrong cable takes for ever: retried)
BOOTIF_PATIENCE_S=30   # for the driver of the interface the firmware booted from
DHCP_PATIENCE_S=300
SYS_NET=${SYS_NET:-/sys/class/net}

# Load a driver for every device there is, and again for those that the first drivers bring (virtio, USB).
load_modules() {
    [ -s "/lib/modules/$(uname -r)/modules.dep" ] || return 0 # a kernel of our own has everything in it
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

# Print the interfaces that are to be bonded: those named by name or MAC address, or all; the present one first,
# for a bond takes the address of its first member, and that is the one the server knows us by.
bond_interfaces() {
    echo "$interface"
    if [ -z "$bond_members" ]; then
        interfaces
    else
        for bond_member in $(echo "$bond_members" | tr ',' ' '); do
            case $bond_member in
                *:*) interface_by_mac "$bond_member" || say "network: no interface has the address $bond_member" >&2 ;;
                *) echo "$bond_member" ;;
            esac
        done
    fi | grep -vx "$interface"
}

# Join interfaces to bond0 and let it be $interface. Source: the kernel's Documentation/networking/bonding.rst.
make_bond() {
    [ -d "$SYS_NET/bond0" ] || modprobe -q bonding
    [ -d "$SYS_NET/bond0" ] || echo +bond0 2>/dev/null >"$SYS_NET/bonding_masters"
    bond_path=$SYS_NET/bond0/bonding
    [ -d "$bond_path" ] || fail network "this kernel has no bonding"
    ip link set bond0 down
    { echo "$bond" >"$bond_path/mode" && echo 100 >"$bond_path/miimon"; } ||
        fail network "bond0 does not take mode $bond"
    bond_joined=''
    [ "$bond" != 802.3ad ] || echo fast >"$bond_path/lacp_rate"
    for bond_member in $(bond_interfaces); do
        ip link set "$bond_member" down
        echo "+$bond_member" 2>/dev/null >"$bond_path/slaves" || say "network: $bond_member cannot join the bond"
        bond_joined="$bond_joined $bond_member"
    done
    ip link set bond0 up
    await_link bond0
    say "network: bond0 ($bond) of$bond_joined"
    interface=bond0
}

# Put VLAN $vlan on $interface and let that be it.
make_vlan() {
    modprobe -q 8021q
    [ -d "$SYS_NET/$interface.$vlan" ] ||
        ip link add link "$interface" name "$interface.$vlan" type vlan id "$vlan" ||
        fail network "this kernel has no VLANs"
    interface=$interface.$vlan
    ip link set "$interface" up
    await_link "$interface"
}

# Wait until interface $1 has a link.
await_link() {
    await_until=$(($(uptime_s) + CARRIER_PATIENCE_S))
    until has_carrier "$1"; do
        [ "$(uptime_s)" -lt "$await_until" ] || fail network "no link on $1 for $CARRIER_PATIENCE_S s"
        sleep 0.1
    done
}

# Take what the kernel's own DHCP client (`ip=dhcp`) has set on $interface, or fail. Its name servers are in file $1.
# Source: the kernel's Documentation/admin-guide/nfs/nfsroot.rst.
adopt_address() {
    address=$(ip -4 -o addr show dev "$interface" 2>/dev/null | sed -n 's/.* inet \([0-9./]*\) .*/\1/p;q')
    [ -n "$address" ] || return
    router=$(ip -4 route show dev "$interface" 2>/dev/null | sed -n 's/^default via \([0-9.]*\).*/\1/p;q')
    dns=$(sed -n '/0\.0\.0\.0/d; s/^nameserver //p' "$1" 2>/dev/null | tr '\n' ',')
    dns=${dns%,}
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
    [ -z "$bond" ] || make_bond
    [ -z "$vlan" ] || make_vlan
    [ -n "$address" ] || adopt_address /proc/net/pnp || ask_dhcp
    configure_address
    read -r mac <"$SYS_NET/$interface/address"
    say "network: $interface ($mac) has address $address"
    report network "$interface $address $mac"
}
