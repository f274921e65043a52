# shellcheck shell=sh
# Speaking to the operator (console or journal) and to the boot server. Sourced by init and by the agent.
#
# $PXEBOOT_RUN/url holds this boot's URL, whose last element is the token. It is a file (0600), given to
# curl on standard input, because arguments can be read by every process of the node. Where that URL is https://,
# $PXEBOOT_RUN/https.conf tells curl whom to trust and where the certificate's name is to be found.

NEWLINE='
'

say() {
    printf 'pxeboot: %s\n' "$*"
}

# Print $1 as the inside of a JSON string (RFC 8259 §7).
json_escape() {
    case $1 in
        *[\"\\[:cntrl:]]*) ;;
        *) printf '%s' "$1" && return ;;
    esac
    json_rest=$1 json_done=''
    while [ -n "$json_rest" ]; do
        json_char=${json_rest%"${json_rest#?}"}
        json_rest=${json_rest#?}
        case $json_char in
            [\"\\]) json_done=$json_done\\$json_char ;;
            [[:cntrl:]]) json_done=$json_done$(printf '\\u%04x' "'$json_char") ;;
            *) json_done=$json_done$json_char ;;
        esac
    done
    printf '%s' "$json_done"
}

# Print the string value of key $1 in the flat JSON object $2; fail when there is none.
# Only what the server really sends is read: values without escapes.
json_string() {
    case $2 in
        *"\"$1\""*:*\"*\"*) ;;
        *) return 1 ;;
    esac
    json_rest=${2#*"\"$1\""}
    json_rest=${json_rest#*:}
    json_rest=${json_rest#*\"}
    printf '%s' "${json_rest%%\"*}"
}

# Print one event: STAGE [DETAIL [DONE TOTAL]], bytes. The server takes a short detail only, so a long one is cut.
# $services, where it is set, is what the node has set up for services.
event_json() {
    printf '{"stage": "%s"' "$1"
    [ -z "${2-}" ] || printf ', "detail": "%s"' "$(json_escape "$(printf %.500s "$2")")"
    [ -z "${4-}" ] || printf ', "done": %s, "total": %s' "$3" "$4"
    [ -z "${services-}" ] || printf ', "services": "%s"' "$(json_escape "$services")"
    printf '}'
}

# Run curl with ARGUMENTS on path $1 below this boot's URL; print body, newline, HTTP status (000: no answer).
# Fails as curl does, except that any HTTP status counts as an answer.
ask_server() {
    read -r ask_url <"$PXEBOOT_RUN/url" || return 1
    ask_path=$1
    shift
    [ ! -s "$PXEBOOT_RUN/https.conf" ] || set -- -K "$PXEBOOT_RUN/https.conf" "$@"
    curl -q -s -K - --connect-timeout 2 -w '\n%{http_code}' "$@" <<END
url = "$ask_url$ask_path"
END
}

# Have curl speak HTTPS with the server at ADDRESS and trust the authority in FILE only. Both stay where they are
# when the image's init takes over.
use_https() {
    cp "$2" "$PXEBOOT_RUN/authority.pem" &&
        printf 'connect-to = "::%s:"\ncacert = "%s/authority.pem"\n' "$1" "$PXEBOOT_RUN" >"$PXEBOOT_RUN/https.conf"
}

# Post one event, arguments as for event_json. 0: the server took it; 3: it refuses our token; 1: anything else.
# Never takes longer than 5 s: reports must not hold up a boot.
report() {
    report_reply=$(ask_server /event --max-time 5 -H 'Content-Type: application/json' \
        --data-binary "$(event_json "$@")") || return 1
    case ${report_reply##*"$NEWLINE"} in
        200) adopt_token "$report_reply" ;;
        403) return 3 ;;
        *) return 1 ;;
    esac
}

# Replace our token by the one in REPLY, if it brings one. The file changes in one step: others read it meanwhile.
adopt_token() {
    new_token=$(json_string token "$1") || return 0
    case $new_token in
        '' | *[!A-Za-z0-9._~-]*) return 0 ;;
    esac
    read -r old_url <"$PXEBOOT_RUN/url"
    write_secret "$PXEBOOT_RUN/url" "${old_url%/*}/$new_token"
}

# Write line $2 to file $1, mode 0600, in one step.
write_secret() {
    (umask 077 && printf '%s\n' "$2" >"$1.new") && mv "$1.new" "$1"
}

# Print a pause in seconds: BASE doubled for each of FAILURES - 1 earlier ones, at most CAP.
pause_after() {
    pause_s=$2 pause_left=$1
    while [ "$pause_left" -gt 1 ] && [ "$pause_s" -lt "$3" ]; do
        pause_s=$((pause_s * 2)) pause_left=$((pause_left - 1))
    done
    [ "$pause_s" -le "$3" ] || pause_s=$3
    echo "$pause_s"
}

# Print SECONDS with up to half taken off at random, to milliseconds, so that a rack does not come back in step.
jittered() {
    jitter_random=$(od -An -N2 -tu2 /dev/urandom)
    jitter_ms=$(($1 * 1000 - $1 * 500 * jitter_random / 65536))
    printf '%d.%03d\n' $((jitter_ms / 1000)) $((jitter_ms % 1000))
}

# Print the seconds since the kernel started, which no clock change moves.
uptime_s() {
    read -r uptime_words </proc/uptime
    echo "${uptime_words%%.*}"
}
