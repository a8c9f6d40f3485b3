#!/usr/bin/env bash
# Compares one shard of rond with one worker of nginx, interleaved, on one core.
#
# usage: perf/scripts/compare.sh [options]      (as root, on Debian; see perf/README.md)
#
#   --rounds N         rounds; each measures every case once on each side    (default 5)
#   --seconds N        length of a measured run                              (default 4)
#   --warmup N         length of the warm-up before each measured run        (default 1)
#   --connections N    connections of the client                             (default 16)
#   --only LIST        cases, comma-separated, of 4k,64k,1m,tls64k           (default all)
#   --out PATH         writes PATH.md and PATH.json  (default perf/results/<date>-compare)
#   --candidate WHAT   command of a rond binary, or `nginx`   (default: builds this checkout)
#   --baseline WHAT    the same                                             (default nginx)
#   --tcp-nopush V     nginx's tcp_nopush, on or off                         (default on)
#   --profile          one more run per case under `perf record` of the candidate, whose top
#                      symbols go to PATH-profile-<case>.txt
#
# `--candidate nginx` measures nginx against itself: the noise of the machine.
# `--baseline OLD/rond` compares two builds.
#
# Exit status: 0 measured; 1 could not measure; 2 wrong usage; 3 a case was void.
set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
LIB="$ROOT/perf/scripts/lib"
readonly ROOT LIB
readonly SERVER_CORE=0 CLIENT_CORE=1
readonly CONGESTION=cubic
readonly ALLOWED_KNOB=/proc/sys/net/ipv4/tcp_allowed_congestion_control
readonly NETNS="rond-perf-$$"
readonly CASES_ALL=4k,64k,1m,tls64k
declare -rA CASE_SCHEME=([4k]=http [64k]=http [1m]=http [tls64k]=https)
declare -rA CASE_LEN=([4k]=4096 [64k]=65536 [1m]=1048576 [tls64k]=65536)

ROUNDS=5 RUN_SECONDS=4 WARMUP=1 CONNECTIONS=16 TCP_NOPUSH=on ONLY=$CASES_ALL OUT="" PROFILE=no
BASELINE=nginx CANDIDATE="" CANDIDATE_SHA="" WORK="" NETNS_MADE=no ALLOWED_BEFORE=""
declare -a CASES=()

say() { printf '%s\n' "$*" >&2; }
die() {
    say "compare.sh: $*"
    exit 1
}
usage() { sed -n '2,/^set -euo/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }
misuse() {
    say "compare.sh: $*"
    usage >&2
    exit 2
}

# The tables of servers.sh are read here.
# shellcheck source=perf/scripts/lib/servers.sh
source "$LIB/servers.sh"

parse_arguments() {
    while (($# > 0)); do
        case $1 in
        --profile) PROFILE=yes ;;
        --help | -h)
            usage
            exit 0
            ;;
        --rounds | --seconds | --warmup | --connections | --only | --out | --candidate | \
            --baseline | --tcp-nopush)
            if (($# < 2)) || [[ -z $2 ]]; then misuse "$1 wants a value"; fi
            set_option "$1" "$2"
            shift
            ;;
        *) misuse "unknown argument: $1" ;;
        esac
        shift
    done
    local name
    IFS=, read -ra CASES <<<"$ONLY"
    for name in "${CASES[@]}"; do
        if [[ -z ${CASE_LEN[$name]:-} ]]; then misuse "unknown case: $name"; fi
    done
}

set_option() { # NAME VALUE
    case $1 in
    --rounds | --seconds | --warmup | --connections)
        if ! [[ $2 =~ ^[1-9][0-9]{0,4}$ ]]; then misuse "$1 wants a number above 0, not $2"; fi
        ;;&
    --rounds) ROUNDS=$2 ;;
    --seconds) RUN_SECONDS=$2 ;;
    --warmup) WARMUP=$2 ;;
    --connections) CONNECTIONS=$2 ;;
    --tcp-nopush)
        if [[ $2 != on && $2 != off ]]; then misuse "$1 is on or off, not $2"; fi
        TCP_NOPUSH=$2
        ;;
    --only) ONLY=$2 ;;
    --out) OUT=${2%.md} ;;
    --candidate) CANDIDATE=$2 ;;
    --baseline) BASELINE=$2 ;;
    esac
}

check_machine() {
    local -A package=([nginx]=nginx [wrk]=wrk [curl]=curl [ip]=iproute2 [ss]=iproute2
        [openssl]=openssl [python3]=python3 [taskset]=util-linux [cmp]=diffutils)
    local tool
    local -a missing=()
    if [[ $PROFILE == yes ]]; then package[perf]=linux-perf; fi
    for tool in "${!package[@]}"; do
        if ! type -P "$tool" >/dev/null; then missing+=("${package[$tool]}"); fi
    done
    if ((${#missing[@]} > 0)); then
        die "missing tools; install them with: apt-get install ${missing[*]}"
    fi
    if ((EUID != 0)); then die "must be root, to make a network namespace"; fi
    if ! taskset -c "$SERVER_CORE" true 2>/dev/null || ! taskset -c "$CLIENT_CORE" true \
        2>/dev/null; then
        die "needs cores $SERVER_CORE and $CLIENT_CORE"
    fi
    # io_uring and the arena lock memory; a login shell's 8 MiB may not do. The server says so
    # itself when the most that can be had here is too little.
    ulimit -l unlimited 2>/dev/null || ulimit -l "$(ulimit -H -l)"
    ulimit -n "$(ulimit -H -n)"
}

clean_up() {
    local side
    for side in baseline candidate; do stop_server "$side"; done
    restore_allowed
    if [[ $NETNS_MADE == yes ]]; then ip netns del "$NETNS" || true; fi
    if [[ -n $WORK ]]; then rm -rf -- "$WORK"; fi
}

build_candidate() {
    if [[ -n $CANDIDATE ]]; then return 0; fi
    if ! type -P cargo >/dev/null; then die "no cargo in root's PATH; name a --candidate"; fi
    say "building rond"
    CANDIDATE=$(cd "$ROOT" && cargo build --release --package ron-engine --bin rond \
        --message-format json-render-diagnostics | python3 "$LIB/field.py" executable)
    if [[ $CANDIDATE == *[[:space:]]* ]]; then die "a space in the path: $CANDIDATE"; fi
}

make_netns() {
    local knob=/proc/sys/net/ipv4/tcp_congestion_control now
    ip netns add "$NETNS"
    NETNS_MADE=yes
    in_netns ip link set lo up
    # Listeners keep the algorithm they were born with, so it is set before any is bound.
    allow_congestion
    in_netns sh -c "echo $CONGESTION >$knob" 2>/dev/null || true
    restore_allowed
    now=$(in_netns cat "$knob")
    if [[ $now != "$CONGESTION" ]]; then
        die "the namespace's congestion control is $now and cannot be made $CONGESTION"
    fi
}

# A namespace may only choose among the algorithms that the host allows to everybody. Where
# $CONGESTION is not one of them, it is allowed for the moment of choosing.
allow_congestion() {
    local allowed
    allowed=$(cat "$ALLOWED_KNOB" 2>/dev/null) || return 0
    if grep -qw "$CONGESTION" <<<"$allowed"; then return 0; fi
    say "allowing $CONGESTION in $ALLOWED_KNOB for a moment (was: $allowed)"
    ALLOWED_BEFORE=$allowed
    printf '%s %s\n' "$allowed" "$CONGESTION" >"$ALLOWED_KNOB" ||
        die "cannot write $ALLOWED_KNOB (in a container?); add $CONGESTION to it on the host"
}

restore_allowed() {
    if [[ -z $ALLOWED_BEFORE ]]; then return 0; fi
    printf '%s\n' "$ALLOWED_BEFORE" >"$ALLOWED_KNOB" || say "could not restore $ALLOWED_KNOB"
    ALLOWED_BEFORE=""
}

# The namespace's setting is only a default: the listeners themselves are asked too.
check_listeners() {
    local listeners others
    listeners=$(in_netns ss --no-header --oneline --listening --tcp --numeric --info)
    others=$(grep -vw "$CONGESTION" <<<"$listeners" || true)
    if [[ -z $listeners || -n $others ]]; then die "listeners without $CONGESTION: $others"; fi
}

make_objects() {
    local name
    mkdir "$WORK/objects"
    for name in "${!CASE_LEN[@]}"; do
        head -c "${CASE_LEN[$name]}" /dev/urandom >"$WORK/objects/${CASE_LEN[$name]}"
    done
}

start_sides() {
    local name side
    start_server baseline "$BASELINE"
    start_server candidate "$CANDIDATE"
    check_listeners
    for side in baseline candidate; do
        say "$side: ${SERVER_VERSION[$side]}, pid ${SERVER_PID[$side]}," \
            "http ${SERVER_HTTP[$side]}, https ${SERVER_HTTPS[$side]}"
        SERVER_TLS[$side]=$(tls_facts "$side")
        for name in "${CASES[@]}"; do
            check_body "$side" "${CASE_SCHEME[$name]}" "${CASE_LEN[$name]}"
        done
    done
}

# Prints the words of the client's command, NUL-separated.
client_command() { # SIDE CASE SECONDS
    printf '%s\0' ip netns exec "$NETNS" taskset -c "$CLIENT_CORE" \
        wrk --threads 1 --connections "$CONNECTIONS" --duration "$3s" --script "$LIB/wrk.lua" \
        "$(url_of "$1" "${CASE_SCHEME[$2]}" "${CASE_LEN[$2]}")"
}

measure() { # ROUND CASE SIDE PLACE
    local other=baseline warm run
    local -a command
    if [[ $3 == baseline ]]; then other=candidate; fi
    # A failing warm-up is not fatal: the measured run fails likewise and is put on record.
    mapfile -d '' -t command < <(client_command "$3" "$2" "$WARMUP")
    warm=$("${command[@]}" 2>&1) || say "warm-up of $3 failed: $warm"
    mapfile -d '' -t command < <(client_command "$3" "$2" "$RUN_SECONDS")
    run=$(python3 "$LIB/measure.py" run --round "$1" --case "$2" --side "$3" --place "$4" \
        --server "${SERVER_PID[$3]}" --bystander "${SERVER_PID[$other]}" \
        --body-len "${CASE_LEN[$2]}" -- "${command[@]}")
    printf '%s\n' "$run" >>"$WORK/runs.jsonl"
    say "round $1  $2  $3  $(sed -E 's/.*("rps": [^,}]*).*("per_cpu": [^,}]*).*/\1 \2/' <<<"$run")"
}

measure_rounds() {
    local round name
    for ((round = 1; round <= ROUNDS; round++)); do
        for name in "${CASES[@]}"; do
            # Who goes first alternates, so that a drift of the machine favours nobody.
            if ((round % 2 == 1)); then
                measure "$round" "$name" baseline first
                measure "$round" "$name" candidate second
            else
                measure "$round" "$name" candidate first
                measure "$round" "$name" baseline second
            fi
        done
    done
}

profile_case() { # CASE
    local pids data="$WORK/perf.data" report="$OUT-profile-$1.txt" client
    local -a command
    if ! pids=$(python3 "$LIB/measure.py" pids "${SERVER_PID[candidate]}"); then
        say "no profile of $1: the candidate is gone"
        return 0
    fi
    mapfile -d '' -t command < <(client_command candidate "$1" $((RUN_SECONDS + WARMUP + 1)))
    "${command[@]}" >"$WORK/profile-wrk.log" 2>&1 &
    client=$!
    sleep "$WARMUP"
    perf record --quiet --event cpu-clock -g --pid "$pids" --output "$data" -- \
        sleep "$RUN_SECONDS" 2>"$WORK/perf.log" || say "perf record: $(cat "$WORK/perf.log")"
    wait "$client" || say "the load of the profile failed: $(cat "$WORK/profile-wrk.log")"
    {
        echo "# $1: ${SERVER_VERSION[candidate]}, $CONNECTIONS connections; self time first,"
        echo "# then the callers of whatever took 3 % or more."
        perf report --stdio --no-inline --no-children --call-graph none \
            --fields overhead,symbol,dso --percent-limit 0.3 --input "$data" 2>/dev/null
        perf report --stdio --no-inline --no-children --max-stack 16 \
            --fields overhead,symbol --call-graph graph,0.5,caller \
            --percent-limit 3 --input "$data" 2>/dev/null
    } | sed -e '/^#$/d' -e '/^[[:space:]]*$/d' -e 's/[[:space:]]*$//' |
        sed -n '1,400p' >"$report" ||
        say "perf report failed for $1"
    say "profile: $report"
}

commit_of_checkout() {
    local commit
    # Root often measures a checkout that belongs to somebody else.
    local -a git=(git -c 'safe.directory=*' -C "$ROOT" --no-optional-locks)
    commit=$("${git[@]}" rev-parse --short=12 HEAD 2>/dev/null) || commit=unknown
    # Results do not change what is measured.
    if [[ -n $("${git[@]}" status --porcelain -- . ':!perf/results' 2>/dev/null) ]]; then
        commit+=", modified"
    fi
    printf '%s' "$commit"
}

write_report() { # LOAD_AT_START STARTED
    local wrk_version
    # wrk prints its version with its usage, and fails.
    wrk_version=$({ wrk --version 2>&1 || true; } | sed -n '1s/ *\[.*//p')
    python3 "$LIB/report.py" --runs "$WORK/runs.jsonl" --out "$OUT" \
        --set started "$2" --set commit "$(commit_of_checkout)" --set load_at_start "$1" \
        --set baseline "${SERVER_VERSION[baseline]}" \
        --set candidate "${SERVER_VERSION[candidate]}" \
        --set baseline_kind "${SERVER_KIND[baseline]}" \
        --set candidate_kind "${SERVER_KIND[candidate]}" \
        --set candidate_sha256 "$CANDIDATE_SHA" \
        --set baseline_tls "${SERVER_TLS[baseline]}" \
        --set candidate_tls "${SERVER_TLS[candidate]}" \
        --set wrk "$wrk_version" --set openssl "$(openssl version)" \
        --set rounds "$ROUNDS" --set seconds "$RUN_SECONDS" --set warmup "$WARMUP" \
        --set connections "$CONNECTIONS" --set congestion_control "$CONGESTION" \
        --set nginx_tcp_nopush "$TCP_NOPUSH" \
        --set server_core "$SERVER_CORE" --set client_core "$CLIENT_CORE"
}

main() {
    local name load started stem suffix=1 status=0
    parse_arguments "$@"
    check_machine
    if [[ -z $OUT ]]; then
        stem="$ROOT/perf/results/$(date +%F)-compare"
        OUT=$stem
        # A result is a record: without --out, an earlier one of the day is kept.
        while [[ -e $OUT.md ]]; do OUT="$stem-$((++suffix))"; done
    fi
    mkdir -p -- "$(dirname -- "$OUT")"
    build_candidate
    started=$(date --iso-8601=seconds)
    load=$(cut -d ' ' -f 1-3 /proc/loadavg)
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    WORK=$(mktemp -d)
    chmod 755 "$WORK" # nginx's worker runs as www-data and reads its files below.
    make_netns
    make_objects
    start_sides
    measure_rounds
    if [[ $CANDIDATE != nginx ]]; then
        CANDIDATE_SHA=$(sha256sum "$(type -P "${CANDIDATE%% *}")" | cut -d ' ' -f 1)
    fi
    write_report "$load" "$started" || status=$?
    if [[ $PROFILE == yes ]]; then
        for name in "${CASES[@]}"; do profile_case "$name"; done
    fi
    return "$status"
}

main "$@"
