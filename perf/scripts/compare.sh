#!/usr/bin/env bash
# Compares one shard of rond with one worker of nginx, interleaved, on one core.
#
# usage: perf/scripts/compare.sh [options]      (as root, on Debian; see perf/README.md)
#
#   --rounds N         rounds; each measures every case once on each side    (default 5)
#   --seconds N        length of a measured run                              (default 4)
#   --warmup N         length of the warm-up before each measured run        (default 1)
#   --connections N    connections of the client, where the case sets none   (default 16)
#   --only LIST        cases, comma-separated, of 4k,4k-c64,64k,1m,64m,range64k,tls4k,tls64k,
#                      tls1m,handshake,open4k,zipf,shards2                   (default all)
#   --out PATH         writes PATH.md, .json and .svg  (default perf/results/<date>-compare)
#   --candidate WHAT   command of a rond binary, or `nginx`   (default: builds this checkout)
#   --baseline WHAT    the same                                             (default nginx)
#   --load PATH        a ron-perf binary                      (default: builds this checkout)
#   --peers LIST       what else is measured in 4k, 64k and 1m: nginx,h2o,varnish
#                                                                           (default nginx)
#   --congestion NAME  congestion control of the namespace                  (default cubic)
#   --tcp-nopush V     nginx's tcp_nopush, on or off                         (default on)
#   --nginx-aio V      nginx's aio, off or threads                          (default off)
#   --profile          one more run per case under `perf record` of the candidate, whose top
#                      symbols go to PATH-profile-<case>.txt, and the share of hashing to PATH.md
#
# `--candidate nginx` measures nginx against itself: the noise of the machine.
# `--baseline OLD/rond` compares two builds. Scratch files (about 3 GiB with zipf) go below TMPDIR,
# which must be a disk and not memory.
#
# Exit status: 0 measured; 1 could not measure; 2 wrong usage; 3 a case was void.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/netns.sh
source "$LIB/netns.sh"
# shellcheck source-path=SCRIPTDIR source=lib/cases.sh
source "$LIB/cases.sh"
# shellcheck source-path=SCRIPTDIR source=lib/cgroup.sh
source "$LIB/cgroup.sh"
# shellcheck source-path=SCRIPTDIR source=lib/servers.sh
source "$LIB/servers.sh"
# shellcheck source-path=SCRIPTDIR source=lib/profile.sh
source "$LIB/profile.sh"

ROUNDS=5 RUN_SECONDS=4 WARMUP=1 ONLY=$CASES_ALL OUT="" PROFILE=no
BASELINE=nginx CANDIDATE="" CANDIDATE_SHA=""
# Before zipf is measured, each server is asked this long, so that what is popular is in memory.
readonly ZIPF_PRIME_SECONDS=8
declare -a PEERS=()

parse_arguments() {
    while (($# > 0)); do
        case $1 in
        --profile) PROFILE=yes ;;
        --help | -h)
            usage
            exit 0
            ;;
        --rounds | --seconds | --warmup | --connections | --only | --out | --candidate | \
            --baseline | --load | --peers | --congestion | --tcp-nopush | --nginx-aio)
            want_value "$1" $# "${2:-}"
            set_option "$1" "$2"
            shift
            ;;
        *) misuse "unknown argument: $1" ;;
        esac
        shift
    done
    parse_cases "$ONLY"
}

set_option() { # NAME VALUE
    case $1 in
    --rounds | --seconds | --warmup | --connections) want_number "$1" "$2" ;;&
    --rounds) ROUNDS=$2 ;;
    --seconds) RUN_SECONDS=$2 ;;
    --warmup) WARMUP=$2 ;;
    --connections) CONNECTIONS=$2 ;;
    --tcp-nopush) want_one_of "$@" on off && TCP_NOPUSH=$2 ;;
    --nginx-aio) want_one_of "$@" off threads && NGINX_AIO=$2 ;;
    --congestion)
        if ! [[ $2 =~ ^[a-z_0-9]+$ ]]; then misuse "$1 is no name: $2"; fi
        CONGESTION=$2
        ;;
    --only) ONLY=$2 ;;
    --out) OUT=${2%.md} ;;
    --candidate) CANDIDATE=$2 ;;
    --baseline) BASELINE=$2 ;;
    --load) LOAD=$2 ;;
    --peers) parse_peers "$2" ;;
    esac
}

want_one_of() { # NAME VALUE ALLOWED...
    local word
    for word in "${@:3}"; do
        if [[ $2 == "$word" ]]; then return 0; fi
    done
    misuse "$1 is one of ${*:3}, not $2"
}

parse_peers() { # LIST
    local name
    PEERS=()
    for name in ${1//,/ }; do
        want_one_of --peers "$name" nginx h2o varnish
        if [[ $name != nginx ]]; then PEERS+=("$name"); fi
    done
}

check_machine() {
    local peer
    need_tools wrk curl ip=iproute2 ss=iproute2 openssl python3 taskset=util-linux cmp=diffutils
    if [[ " $BASELINE $CANDIDATE " == *" nginx "* ]]; then need_tools nginx; fi
    if [[ $PROFILE == yes ]]; then need_tools perf=linux-perf; fi
    for peer in "${PEERS[@]}"; do need_tools "${peer/varnish/varnishd}=$peer"; done
    need_root
    need_cores
    raise_limits
    if has_case zipf && [[ $(stat -f -c %T "${TMPDIR:-/tmp}") == tmpfs ]]; then
        die "zipf reads from a disk, and ${TMPDIR:-/tmp} is memory; set TMPDIR"
    fi
}

clean_up() {
    stop_servers
    remove_netns
}

build_what_is_missing() {
    if [[ -z $CANDIDATE ]]; then
        CANDIDATE=$(build ron-engine rond)
        if [[ $CANDIDATE == *[[:space:]]* ]]; then die "a space in the path: $CANDIDATE"; fi
    fi
    if [[ -z $LOAD ]] && needs_ron_perf; then LOAD=$(build ron-perf ron-perf); fi
    if [[ $CANDIDATE != nginx ]]; then
        CANDIDATE_SHA=$(sha256_of "$(type -P "${CANDIDATE%% *}")")
    fi
}

# One run of the client of a case, charged to a side. Prints its record.
run_client() { # ROUND CASE SIDE PLACE SECONDS WARMUP
    local other
    local -a facts=(--round "$1" --case "$2" --side "$3" --place "$4" --seconds "$5")
    facts+=(--tool "$(tool_of "$2")" --server "${SERVER_PID[$3]}" --body-len "${CASE_LEN[$2]}")
    if [[ -n ${SERVER_ADMIN[$3]} ]]; then facts+=(--admin "${SERVER_ADMIN[$3]}"); fi
    if [[ $2 == open4k ]]; then facts+=(--rate "$OPEN_RATE"); fi
    for other in "${!SERVER_PID[@]}"; do
        if [[ $other != "$3" ]]; then facts+=(--bystander "${SERVER_PID[$other]}"); fi
    done
    client_command "$3" "$2" "$5" "$6"
    in_netns python3 "$LIB/measure.py" run "${facts[@]}" -- "${COMMAND[@]}"
}

# A failing warm-up is not fatal: the measured run fails likewise and is put on record.
warm_up() { # CASE SIDE
    local warm
    if [[ $(tool_of "$1") == ron-perf ]]; then return 0; fi # It has its own.
    client_command "$2" "$1" "$WARMUP" 1
    warm=$(in_netns "${COMMAND[@]}" 2>&1) || say "warm-up of $2 failed: $warm"
}

measure() { # ROUND CASE SIDE PLACE
    local run
    warm_up "$2" "$3"
    run=$(run_client "$1" "$2" "$3" "$4" "$RUN_SECONDS" "$WARMUP")
    printf '%s\n' "$run" >>"$SCRATCH/runs.jsonl"
    say "round $1  $2  $3  $(python3 "$LIB/brief.py" "$run")"
}

# Half of what the candidate can do, of this run: from the case 4k, or found out now.
settle_open_rate() {
    local best
    if [[ -n $OPEN_RATE ]]; then return 0; fi
    if ! best=$(grep -s '"case": "4k", .*"side": "candidate"' "$SCRATCH/runs.jsonl" |
        python3 "$LIB/field.py" rps); then
        warm_up 4k candidate
        best=$(run_client 0 4k candidate first "$RUN_SECONDS" "$WARMUP" |
            python3 "$LIB/field.py" rps)
    fi
    OPEN_RATE=$((${best%.*} / 2))
    say "open loop: $OPEN_RATE requests/s, half of $best"
}

# What the machine takes from a thread that only reads the clock, on both cores at once: what an
# open loop's tail is judged by. The servers wait meanwhile; the worse core is put on record.
measure_pauses() { # ROUND
    local seen
    seen=$(
        taskset -c "$SERVER_CORE" "$LOAD" pauses --seconds "$RUN_SECONDS" &
        taskset -c "$CLIENT_CORE" "$LOAD" pauses --seconds "$RUN_SECONDS"
        wait $!
    )
    python3 "$LIB/pauses.py" "$1" <<<"$seen" >>"$SCRATCH/runs.jsonl"
    say "round $1  pauses  $(tail -n 1 "$SCRATCH/runs.jsonl")"
}

measure_round() { # ROUND CASE
    local peer
    if [[ $2 == open4k ]]; then settle_open_rate; fi
    # Who goes first alternates, so that a drift of the machine favours nobody.
    if (($1 % 2 == 1)); then
        measure "$1" "$2" baseline first
        measure "$1" "$2" candidate second
    else
        measure "$1" "$2" candidate first
        measure "$1" "$2" baseline second
    fi
    if [[ $2 == open4k ]]; then measure_pauses "$1"; fi
    if [[ ,$CASES_PEERS, == *,$2,* ]]; then
        for peer in "${PEERS[@]}"; do measure "$1" "$2" "$peer" later; done
    fi
}

check_hot_sides() {
    local side name
    for side in baseline candidate; do
        if [[ -z ${SERVER_TLS[$side]:-} ]]; then SERVER_TLS[$side]=$(tls_facts "$side"); fi
        for name in "$@"; do
            if [[ $name == range64k ]]; then
                check_range_objects "$side"
            else
                check_body "$side" "$name"
            fi
        done
    done
    for side in "${PEERS[@]}"; do
        for name in "$@"; do
            if [[ ,$CASES_PEERS, == *,$name,* ]]; then check_body "$side" "$name"; fi
        done
    done
}

prime_zipf() {
    local side
    for side in baseline candidate; do
        run_client 0 zipf "$side" first 1 "$ZIPF_PRIME_SECONDS" >/dev/null
    done
}

# The cases of a group, measured in rounds between one start of its servers and one stop.
measure_group() { # GROUP CASE...
    local round name
    if (($# < 2)); then return 0; fi
    if [[ $1 == zipf ]]; then
        start_sides zipf
        prime_zipf
    else
        start_sides "$1" "${PEERS[@]}"
        check_hot_sides "${@:2}"
    fi
    for ((round = 1; round <= ROUNDS; round++)); do
        for name in "${@:2}"; do measure_round "$round" "$name"; done
    done
    if [[ $PROFILE == yes ]]; then
        for name in "${@:2}"; do profile_case "$name"; done
    fi
    stop_servers
}

# Two shards of rond alone: what it costs that another shard has the object.
measure_shards() {
    if ! has_case shards2; then return 0; fi
    if [[ $CANDIDATE == nginx ]]; then
        say "shards2 needs a rond as candidate: left out"
        return 0
    fi
    # Port ranges of the namespace are set on the way, so it is the last that runs in it.
    in_netns python3 "$LIB/shards2.py" --rounds "$ROUNDS" --seconds "$RUN_SECONDS" \
        --warmup "$WARMUP" --connections "$CONNECTIONS" --scratch "$SCRATCH/shards2" \
        --lua "$LIB/shards2.lua" --out "$SCRATCH/runs.jsonl" -- "$CANDIDATE"
}

write_report() { # LOAD_AT_START STARTED
    local wrk_version
    # wrk prints its version with its usage, and fails.
    wrk_version=$({ wrk --version 2>&1 || true; } | sed -n '1s/ *\[.*//p')
    python3 "$LIB/report.py" --runs "$SCRATCH/runs.jsonl" --out "$OUT" \
        --profiles "$SCRATCH/profiles.jsonl" \
        --set started "$2" --set commit "$(commit_of_checkout)" --set load_at_start "$1" \
        --set baseline "${SERVER_VERSION[baseline]:-none}" \
        --set candidate "${SERVER_VERSION[candidate]:-$CANDIDATE}" \
        --set baseline_kind "${SERVER_KIND[baseline]:-none}" \
        --set candidate_kind "${SERVER_KIND[candidate]:-rond}" \
        --set candidate_sha256 "$CANDIDATE_SHA" \
        --set baseline_tls "${SERVER_TLS[baseline]:-}" \
        --set candidate_tls "${SERVER_TLS[candidate]:-}" \
        --set peers "$(peer_versions)" \
        --set wrk "$wrk_version" --set openssl "$(openssl version)" \
        --set rounds "$ROUNDS" --set seconds "$RUN_SECONDS" --set warmup "$WARMUP" \
        --set connections "$CONNECTIONS" --set congestion_control "$CONGESTION" \
        --set nginx_tcp_nopush "$TCP_NOPUSH" --set nginx_aio "$NGINX_AIO" \
        --set zipf_data "$ZIPF_COUNT objects of $ZIPF_LEN, Zipf 1.0, ${CASE_CONNECTIONS[zipf]} \
connections" --set zipf_memory "$ZIPF_MEMORY" \
        --set server_core "$SERVER_CORE" --set client_core "$CLIENT_CORE"
}

peer_versions() {
    local peer text=""
    for peer in "${PEERS[@]}"; do text+="${text:+, }${SERVER_VERSION[$peer]:-$peer}"; done
    printf '%s' "$text"
}

main() {
    local load started name
    local -a hot=() zipf=()
    parse_arguments "$@"
    check_machine
    OUT=${OUT:-$(fresh_result compare)}
    mkdir -p -- "$(dirname -- "$OUT")"
    build_what_is_missing
    started=$(date --iso-8601=seconds)
    load=$(load_average)
    open_scratch
    : >"$SCRATCH/runs.jsonl"
    make_netns
    for name in "${CASES[@]}"; do
        case $(group_of "$name") in
        hot) hot+=("$name") ;;
        zipf) zipf+=("$name") ;;
        esac
    done
    measure_group hot "${hot[@]}"
    measure_group zipf "${zipf[@]}"
    measure_shards
    write_report "$load" "$started"
}

main "$@"
