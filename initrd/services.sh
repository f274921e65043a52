# shellcheck shell=sh
# What the services of a node's group need on the node, besides the programs that answer. Sourced by the agent.
#
# The server tells it as entries separated by commas, of these kinds:
#   dr VIP        direct routing: the virtual address on lo, unknown to the neighbours
#   tun VIP       IP in IP: the virtual address at the tunnel's end
#   address A/64  an address of the node's own, for services with IPv6
#   gateway A     its IPv6 default route, for services whose addresses the director translates (the IPv4 one
#                 comes with the lease)
# $PXEBOOT_RUN/services has an entry a line of what is set up now; the agent reports it with every heartbeat.
# Doing anything here twice is fine.

# Set up what WANTED says, and undo what an earlier one has set up beyond that. Fails if something cannot be set up.
equip() {
    printf '%s\n' "$1" | tr ',' '\n' | grep . >"$PXEBOOT_RUN/services.wanted"
    touch "$PXEBOOT_RUN/services"
    while read -r equip_kind equip_what; do
        grep -qxF "$equip_kind $equip_what" "$PXEBOOT_RUN/services.wanted" || unset_entry "$equip_kind" "$equip_what"
    done <"$PXEBOOT_RUN/services"
    # Should we be killed in the middle, the next one must know what to undo.
    cat "$PXEBOOT_RUN/services.wanted" >>"$PXEBOOT_RUN/services"
    arp_restrained=''
    if grep -Eq '^(dr|tun) ' "$PXEBOOT_RUN/services.wanted"; then
        restrain_arp && arp_restrained=yes
    else
        restore_settings
    fi
    equip_failed=''
    while read -r equip_kind equip_what; do
        if set_entry "$equip_kind" "$equip_what"; then
            echo "$equip_kind $equip_what"
        else
            equip_failed="${equip_failed:+$equip_failed, }$equip_kind $equip_what"
        fi
    done <"$PXEBOOT_RUN/services.wanted" >"$PXEBOOT_RUN/services.new"
    mv "$PXEBOOT_RUN/services.new" "$PXEBOOT_RUN/services"
    [ -z "$equip_failed" ]
}

# Print what is set up, as entries separated by commas.
equipment() {
    [ ! -s "$PXEBOOT_RUN/services" ] || tr '\n' ',' <"$PXEBOOT_RUN/services" | sed 's/,$//'
}

set_entry() {
    case $1 in
        dr) [ -n "$arp_restrained" ] && add_address "$2" lo ;;
        tun) [ -n "$arp_restrained" ] && open_tunnel "$2" && add_address "$2" "$(tunnel_for "$2")" ;;
        address) add_address "$2" "$(boot_interface)" ;;
        gateway) ip -6 route replace default via "$2" dev "$(boot_interface)" ;;
        *) false ;;
    esac
}

unset_entry() {
    case $1 in
        dr) remove_address "$2" lo ;;
        tun) remove_address "$2" "$(tunnel_for "$2")" ;;
        address) remove_address "$2" "$(boot_interface)" ;;
        gateway) ip -6 route del default via "$2" dev "$(boot_interface)" ;;
    esac
}

# Print the interface that has the node's own address; udev may have given it another name since.
boot_interface() {
    # shellcheck source=/dev/null
    . "$PXEBOOT_RUN/network"
    # shellcheck disable=SC2154  # address comes from that file
    ip -o -4 addr show to "${address%/*}" | awk '{ print $2; exit }'
}

tunnel_for() {
    case $1 in
        *:*) echo ip6tnl0 ;;
        *) echo tunl0 ;;
    esac
}

# Bring up the end of tunnels that takes packets for ADDRESS from any director. What comes out of it is from
# clients, who are not on that side by the routing table: reverse path filtering (rp_filter) would drop it.
open_tunnel() {
    open_name=$(tunnel_for "$1")
    if ! ip link show "$open_name" >/dev/null 2>&1; then
        modprobe "$(case $open_name in tunl0) echo ipip ;; *) echo ip6_tunnel ;; esac)"
    fi
    ip link set "$open_name" up || return
    for open_where in all "$open_name"; do
        set_setting "ipv4/conf/$open_where/rp_filter" 0
    done
}

with_prefix() {
    case $1 in
        */*) echo "$1" ;;
        *:*) echo "$1/128" ;;
        *) echo "$1/32" ;;
    esac
}

# Is ADDRESS/PREFIX on INTERFACE?
has_address() {
    ip -o addr show dev "$2" 2>/dev/null | grep -qF " $1 "
}

add_address() {
    add_prefixed=$(with_prefix "$1")
    has_address "$add_prefixed" "$2" || ip addr add "$add_prefixed" dev "$2"
}

remove_address() {
    remove_prefixed=$(with_prefix "$1")
    ! has_address "$remove_prefixed" "$2" || ip addr del "$remove_prefixed" dev "$2"
}

# Keep virtual addresses from the neighbours, for the director alone answers for them. Must be so before a node
# has one. arp_ignore 1: no answer for an address of another interface; arp_announce 2: no question sent from one
# (ip-sysctl.rst; the higher of `all` and the interface's own counts). IPv6 needs none of it: a neighbour is
# answered only for addresses of the interface it asks on.
restrain_arp() {
    for restrain_where in all $(boot_interface); do
        set_setting "ipv4/conf/$restrain_where/arp_ignore" 1 &&
            set_setting "ipv4/conf/$restrain_where/arp_announce" 2 || return
    done
}

# Write VALUE to a setting below /proc/sys/net, and remember what it was. These files give their value to the first
# read only, and busybox's `read` takes one byte at a time.
set_setting() {
    set_before=$(cat "/proc/sys/net/$1") || return
    [ "$set_before" != "$2" ] || return 0
    grep -qsF "$1 " "$PXEBOOT_RUN/settings" || echo "$1 $set_before" >>"$PXEBOOT_RUN/settings"
    echo "$2" >"/proc/sys/net/$1"
}

# Put back what `set_setting` has changed.
restore_settings() {
    [ -e "$PXEBOOT_RUN/settings" ] || return 0
    while read -r restore_name restore_value; do
        echo "$restore_value" >"/proc/sys/net/$restore_name"
    done <"$PXEBOOT_RUN/settings"
    rm -f "$PXEBOOT_RUN/settings"
}
