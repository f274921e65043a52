# shellcheck shell=sh
# The root image: room for it, its bytes, its digest, its mounts. Sourced by init; fail and say come from there.
# shellcheck disable=SC2154  # root, size, zram: parameters.sh

MB=1048576
OVERLAY_FLOOR_MB=128  # what is written after the boot, and the memory of the programs that write it
DOWNLOAD_PAUSE_S=8    # longest pause between two attempts
PROGRESS_S=1
STALL_S=15            # a connection slower than 1 kB/s for so long is dropped and taken up again
MEMINFO=${MEMINFO:-/proc/meminfo}
MOUNTS=${MOUNTS:-/run/initramfs} # systemd unmounts nothing below this path at shutdown (mount_is_extrinsic)

# Print SIZE in bytes as MB, rounded up.
megabytes() {
    echo $((($1 + MB - 1) / MB))
}

# Print the bytes file $1 has, 0 when there is none.
bytes_of() {
    stat -c %s "$1" 2>/dev/null || echo 0
}

# Print what MemAvailable says, bytes.
memory_available() {
    while read -r memory_key memory_kb _; do
        [ "$memory_key" != MemAvailable: ] || { echo $((memory_kb * 1024)) && return; }
    done <"$MEMINFO"
    return 1
}

# Print why an image of SIZE bytes, of which HAVE are in RAM already, does not fit AVAILABLE bytes; fail if it fits.
memory_problem() {
    memory_mb=$((($2 + $3) / MB))
    [ $(($(megabytes "$1") + OVERLAY_FLOOR_MB)) -gt "$memory_mb" ] || return
    echo "image needs $(megabytes "$1") MB and $OVERLAY_FLOOR_MB MB for the overlay, $memory_mb MB available"
}

# Is something mounted on directory $1?
is_mounted() {
    while read -r _ mounted_on _; do
        [ "$mounted_on" != "$1" ] || return 0
    done </proc/mounts
    return 1
}

# Make the place for the image: a tmpfs just large enough, because the default of half the RAM is wrong both ways.
make_store() {
    if problem=$(memory_problem "$size" "$(bytes_of "$MOUNTS/store/root.squashfs")" "$(memory_available)"); then
        fail memory "$problem"
    fi
    is_mounted "$MOUNTS/store" && return
    mkdir -p "$MOUNTS/store"
    mount -t tmpfs -o "mode=0700,size=$(($(megabytes "$size") + 1))M" store "$MOUNTS/store" ||
        fail mount "no tmpfs for the image"
}

# Report how far FILE of SIZE bytes has come, until killed; print it when it has come further.
show_progress() {
    progress_shown=-1
    while sleep $PROGRESS_S; do
        progress_done=$(bytes_of "$1")
        if [ "$progress_done" -ne "$progress_shown" ]; then
            say "image: $((progress_done / MB)) of $(megabytes "$2") MB"
            progress_shown=$progress_done
        fi
        report image '' "$progress_done" "$2"
    done
}

# Fetch what FILE lacks, once. Prints the HTTP status; status 0 or curl's own, its words in $PXEBOOT_RUN/curl.err
# and the answer's headers in $PXEBOOT_RUN/curl.headers.
fetch_rest() {
    : >"$PXEBOOT_RUN/curl.headers"
    ask_server /root -f -S -C - -o "$1" -D "$PXEBOOT_RUN/curl.headers" --connect-timeout 5 --speed-limit 1024 --speed-time $STALL_S \
        2>"$PXEBOOT_RUN/curl.err"
}

# Print the number that header $1 of the last attempt's answer has, if any.
header_number() {
    sed -n "s/^$1: *\([0-9]\{1,4\}\)[[:space:]]*$/\1/Ip" "$PXEBOOT_RUN/curl.headers"
}

# Decide what follows one attempt: CURL_STATUS HTTP_STATUS RETRY_AFTER. Prints
#   wait   the link is full, and the server has told when to ask again
#   again  a broken or missing connection: take it up where it broke off
#   anew   what we have cannot be continued (33: the server ignored our Range; 416: it has nothing after what we
#          have, which curl takes for success)
#   else   the sentence of a failure: asking again at once will not help (23: cannot write)
after_attempt() {
    case $1-$2 in
        33-* | *-416) echo anew ;;
        0-*) echo "the server's image is not the size the boot script gave" ;;
        23-*) echo "no room left for the image" ;;
        *-503)
            [ -n "$3" ] && echo wait || echo again
            ;;
        *-403) echo "the server refuses this boot's token (HTTP 403)" ;;
        *-404) echo "the server has no image for this boot (HTTP 404)" ;;
        *-4??) echo "the server refuses the image (HTTP $2)" ;;
        *) echo again ;;
    esac
}

# Print why an attempt broke off: its HTTP_STATUS, or curl's words.
attempt_problem() {
    case $1 in
        5??) echo "HTTP $1" ;;
        *) sed -n '1s/^curl: *//p' "$PXEBOOT_RUN/curl.err" ;;
    esac
}

# Wait as the server asked: SECONDS, at PLACE in its queue. What it chose is spread over the rack already.
wait_turn() {
    [ "$2" = "$wait_shown" ] || say "image: queued, place $2"
    wait_shown=$2
    sleep "$1"
}

# Load FILE of SIZE bytes, however often the connection breaks or the server is away; fails only for what waiting
# does not mend. A server killed and started again is asked for the rest.
load_file() {
    load_failures=0 wait_shown=''
    until [ "$(bytes_of "$1")" -eq "$2" ]; do
        load_before=$(bytes_of "$1")
        load_http=$(fetch_rest "$1")
        load_next=$(after_attempt $? "${load_http##*"$NEWLINE"}" "$(header_number Retry-After)")
        load_now=$(bytes_of "$1")
        [ "$load_now" -ne "$2" ] || return 0
        case $load_next in
            again) ;;
            wait)
                wait_turn "$(header_number Retry-After)" "$(header_number Queue-Place)"
                continue
                ;;
            anew) rm -f "$1" ;;
            *)
                [ "${load_http##*"$NEWLINE"}" -ge 400 ] || rm -f "$1" # a refusal spoils nothing already here
                fail download "$load_next"
                ;;
        esac
        [ "$load_now" -le "$load_before" ] || load_failures=0 # pauses grow only while nothing arrives
        load_failures=$((load_failures + 1))
        load_pause=$(jittered "$(pause_after $load_failures 1 $DOWNLOAD_PAUSE_S)")
        load_problem=$(attempt_problem "${load_http##*"$NEWLINE"}")
        say "image: broke off at $((load_now / MB)) MB: $load_problem; going on in $load_pause s"
        sleep "$load_pause"
    done
}

# Load the image into FILE, showing and reporting progress meanwhile.
download() {
    say "image: loading $(megabytes "$size") MB"
    report image '' "$(bytes_of "$1")" "$size" &
    show_progress "$1" "$size" &
    progress_pid=$!
    trap 'kill $progress_pid' EXIT # fail leaves from inside load_file
    load_file "$1" "$size"
    trap - EXIT
    kill $progress_pid
    report image '' "$size" "$size" &
}

# Refuse FILE unless its SHA-256 is the one the boot script gave; a refused file is removed.
verify() {
    say "image: checking its SHA-256"
    verify_sum=$(sha256sum "$1")
    verify_sum=${verify_sum%% *}
    [ "$verify_sum" != "$root" ] || return 0
    rm -f "$1"
    fail digest "expected $(short "$root"), got $(short "$verify_sum")"
}

# Print the first 12 digits of a digest, as the operator sees it everywhere.
short() {
    printf '%.12s' "$1"
}

# Give the system swap in compressed RAM: $zram percent of the memory it has. What pages hold compresses to a third or
# so, which makes room where programs keep much that they seldom use. Source: the kernel's zram.rst.
make_swap() {
    ! grep -q zram0 /proc/swaps || return 0
    modprobe -q zram
    read -r _ swap_kb _ <"$MEMINFO"
    swap_mb=$((swap_kb * ${zram%\%} / 102400))
    [ -d /sys/block/zram0 ] || fail init "pxeboot.zram: this kernel has no zram"
    echo zstd 2>/dev/null >/sys/block/zram0/comp_algorithm || : # the kernel's default does as well
    { echo "${swap_mb}M" >/sys/block/zram0/disksize && mkswap /dev/zram0 >/dev/null && swapon /dev/zram0; } ||
        fail init "pxeboot.zram: cannot make swap of $swap_mb MB"
    say "swap: $swap_mb MB in compressed RAM"
}

# Mount FILE as /newroot, with a tmpfs of half the free RAM above it.
mount_root() {
    mkdir -p "$MOUNTS/lower" "$MOUNTS/rw" /newroot
    for mount_old in /newroot "$MOUNTS/rw" "$MOUNTS/lower"; do
        ! is_mounted "$mount_old" || umount "$mount_old"
    done
    mount_mb=$(($(memory_available) / 2 / MB))
    [ $mount_mb -ge $OVERLAY_FLOOR_MB ] || mount_mb=$OVERLAY_FLOOR_MB
    mount -t squashfs -o loop,ro "$1" "$MOUNTS/lower" || fail mount "the image is no SquashFS this kernel reads"
    mount -t tmpfs -o "mode=0755,size=${mount_mb}M" rw "$MOUNTS/rw" || fail mount "no tmpfs for the overlay"
    mkdir -p "$MOUNTS/rw/upper" "$MOUNTS/rw/work"
    mount -t overlay -o "lowerdir=$MOUNTS/lower,upperdir=$MOUNTS/rw/upper,workdir=$MOUNTS/rw/work" root /newroot ||
        fail mount "no overlay over the image"
    [ -e /newroot/sbin/init ] || [ -L /newroot/sbin/init ] || fail mount "the image has no /sbin/init"
    say "root: mounted, overlay of $mount_mb MB"
}
