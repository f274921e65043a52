# shellcheck shell=sh
# What the boot script passed on the kernel command line, read once and checked before it is used.

# Set one variable per parameter from the command line in file $1; what is absent becomes empty.
# shellcheck disable=SC2034  # the variables are for whoever sources this file
read_parameters() {
    url='' server='' now='' image='' root='' size='' name='' address='' router='' dns='' bootif='' debug=''
    bond='' bond_members='' vlan='' zram=''
    read -r parameters_line <"$1" || : # a file without a final newline has been read all the same
    set -f
    for parameters_word in $parameters_line; do
        case $parameters_word in
            pxeboot.url=*) url=${parameters_word#*=} ;;
            pxeboot.server=*) server=${parameters_word#*=} ;;
            pxeboot.time=*) now=${parameters_word#*=} ;;
            pxeboot.image=*) image=${parameters_word#*=} ;;
            pxeboot.root=*) root=${parameters_word#*=} ;;
            pxeboot.size=*) size=${parameters_word#*=} ;;
            pxeboot.name=*) name=${parameters_word#*=} ;;
            pxeboot.address=*) address=${parameters_word#*=} ;;
            pxeboot.router=*) router=${parameters_word#*=} ;;
            pxeboot.dns=*) dns=${parameters_word#*=} ;;
            pxeboot.bond=*) bond=${parameters_word#*=} ;;
            pxeboot.bond_members=*) bond_members=${parameters_word#*=} ;;
            pxeboot.vlan=*) vlan=${parameters_word#*=} ;;
            pxeboot.zram=*) zram=${parameters_word#*=} ;;
            pxeboot.debug) debug=yes ;;
            BOOTIF=*) bootif=${parameters_word#*=} ;;
        esac
    done
    set +f
}

# Print what is wrong with the parameters and succeed, or print nothing and fail.
parameter_problem() {
    case $url in
        *[!A-Za-z0-9:/._~-]*) echo "pxeboot.url holds a character no boot URL has" ;;
        http://*/*) false ;;
        https://*/*) https_problem ;;
        *) echo "pxeboot.url is missing or neither http:// nor https://" ;;
    esac && return
    is_digest "$root" || { echo "pxeboot.root is not a SHA-256 in 64 hexadecimal digits" && return; }
    is_digest "$image" || { echo "pxeboot.image is not a SHA-256 in 64 hexadecimal digits" && return; }
    case $size in
        '' | 0* | *[!0-9]* | ????????????????*) echo "pxeboot.size is not a number of bytes" && return ;;
    esac
    case $name in
        '' | [!A-Za-z0-9]* | *[!A-Za-z0-9.-]*) echo "pxeboot.name is not a host name (RFC 1123)" && return ;;
    esac
    option_problem
}

# Print what is wrong with what the operator added to the command line and succeed, or print nothing and fail.
option_problem() {
    case $bond in
        '' | balance-rr | active-backup | balance-xor | broadcast | 802.3ad | balance-tlb | balance-alb) ;;
        *) echo "pxeboot.bond=$bond is no mode of bonding, like active-backup or 802.3ad" && return ;;
    esac
    case $bond_members in
        *[!A-Za-z0-9,:._-]*) echo "pxeboot.bond_members is no list of interfaces or MAC addresses" && return ;;
    esac
    is_number_in "$vlan" 1 4094 || { echo "pxeboot.vlan=$vlan is no VLAN identifier, 1 to 4094" && return; }
    is_number_in "${zram%\%}" 1 300 || { echo "pxeboot.zram=$zram is no share of the memory, like 50%" && return; }
    return 1
}

# Is $1 empty, or a number from $2 to $3?
is_number_in() {
    case $1 in
        '') return 0 ;;
        0* | *[!0-9]* | ?????*) return 1 ;;
    esac
    [ "$1" -ge "$2" ] && [ "$1" -le "$3" ]
}

# Print what HTTPS lacks and succeed, or print nothing and fail.
https_problem() {
    case $server in
        '' | *[!0-9.]*) echo "pxeboot.server is not the address of the server in pxeboot.url" && return ;;
    esac
    [ ! -s "$PXEBOOT_LIB/authority.pem" ] || return
    echo "pxeboot.url is https:// and this initrd has no authority to check it by"
}

is_digest() {
    case $1 in
        *[!0-9a-f]*) return 1 ;;
    esac
    [ ${#1} -eq 64 ]
}

# Print the MAC address in a BOOTIF value: PXELINUX writes hardware type 01, then the octets, with dashes.
bootif_mac() {
    printf '%s' "${1#01-}" | tr 'A-F-' 'a-f:'
}
