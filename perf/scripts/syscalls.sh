#!/usr/bin/env bash
# Counts system calls per request and CPU per request, rond beside nginx, case by case.
#
# usage: perf/scripts/syscalls.sh [options]                  (as root; see perf/README.md)
#
#   --only LIST        cases of compare.sh, but for shards2 and open4k       (default 4k,64k,tls4k)
#   --seconds N        length of each run                                    (default 4)
#   --connections N    of the client, where the case sets none               (default 16)
#   --out PATH         writes PATH.md and PATH.json     (default perf/results/<date>-syscalls)
#   --candidate WHAT   command of a rond binary, or `nginx`  (default: builds this checkout)
#   --baseline WHAT    the same                                              (default nginx)
#   --load PATH        a ron-perf binary                     (default: builds this checkout)
#   --congestion NAME  congestion control of the namespace                   (default cubic)
#
# Every case runs twice on each side: once untouched, for the CPU time, and once while the kernel
# counts. Where it has tracepoints, `perf stat` counts every call exactly; otherwise strace does,
# which slows the server so much that only its counts per request mean anything.
#
# Exit status: 0 measured; 1 could not measure; 2 wrong usage.
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

ONLY=4k,64k,tls4k RUN_SECONDS=4 OUT="" CANDIDATE="" BASELINE=nginx COUNTER=""
readonly WARMUP=1

parse_arguments() {
    while (($# > 0)); do
        case $1 in
        --help | -h)
            usage
            exit 0
            ;;
        --only | --seconds | --connections | --out | --candidate | --baseline | --load | \
            --congestion)
            want_value "$1" $# "${2:-}"
            set_option "$1" "$2"
            shift
            ;;
        *) misuse "unknown argument: $1" ;;
        esac
        shift
    done
    parse_cases "$ONLY"
    if has_case shards2 open4k; then misuse "shards2 and open4k are not counted"; fi
}

set_option() { # NAME VALUE
    case $1 in
    --seconds | --connections) want_number "$1" "$2" ;;&
    --only) ONLY=$2 ;;
    --seconds) RUN_SECONDS=$2 ;;
    --connections) CONNECTIONS=$2 ;;
    --out) OUT=${2%.md} ;;
    --candidate) CANDIDATE=$2 ;;
    --baseline) BASELINE=$2 ;;
    --load) LOAD=$2 ;;
    --congestion) CONGESTION=$2 ;;
    esac
}

# Whether the kernel lets us count its entries by name.
choose_counter() {
    if perf stat --event syscalls:sys_enter_read -- true >/dev/null 2>&1; then
        COUNTER=perf
    elif type -P strace >/dev/null; then
        COUNTER=strace
        say "no tracepoints for system calls here: strace counts"
    else
        die "no tracepoints for system calls here; apt-get install strace"
    fi
}

check_machine() {
    need_tools wrk curl ip=iproute2 ss=iproute2 openssl python3 taskset=util-linux perf=linux-perf
    need_root
    need_cores
    raise_limits
    choose_counter
}

clean_up() {
    stop_servers
    remove_netns
}

run_facts() { # CASE SIDE
    printf '%s\0' --round 1 --case "$1" --side "$2" --place first --seconds "$RUN_SECONDS" \
        --tool "$(tool_of "$1")" --server "${SERVER_PID[$2]}" --body-len "${CASE_LEN[$1]}"
}

# The untouched run: CPU time in all, and its parts in user and system mode.
time_case() { # CASE SIDE
    local -a facts
    mapfile -d '' -t facts < <(run_facts "$1" "$2")
    client_command "$2" "$1" "$RUN_SECONDS" "$WARMUP"
    in_netns python3 "$LIB/measure.py" run "${facts[@]}" -- "${COMMAND[@]}" \
        >"$SCRATCH/timed-$1-$2.json"
}

# The counted run. The client is the command that perf waits for, so that both have one window;
# a client with a warm-up of its own gets none, since its requests would not be counted.
count_case() { # CASE SIDE
    local pids out="$SCRATCH/counted-$1-$2" tracer deadline
    pids=$(python3 "$LIB/measure.py" pids "${SERVER_PID[$2]}") || die "$2 is gone"
    client_command "$2" "$1" "$RUN_SECONDS" 0
    COMMAND=("${COMMAND[@]/@PIDS/$pids}")
    if [[ $COUNTER == perf ]]; then
        in_netns perf stat --event 'syscalls:sys_enter_*' --event 'io_uring:io_uring_submit_req' \
            --event 'context-switches' --pid "$pids" --field-separator ';' --output "$out.counts" \
            -- "${COMMAND[@]}" >"$out.load" 2>"$out.log" ||
            die "counting $1 on $2: $(tail -n 5 "$out.log")"
        return 0
    fi
    # strace takes one -p for all, separated by spaces or commas.
    strace -c -f -o "$out.counts" -p "$pids" 2>"$out.strace" &
    tracer=$!
    deadline=$((SECONDS + READY_SECONDS_MAX))
    until grep -qs attached "$out.strace"; do
        if ((SECONDS >= deadline)); then die "strace: $(cat "$out.strace")"; fi
        sleep 0.05
    done
    in_netns "${COMMAND[@]}" >"$out.load" 2>"$out.log" || say "$1 on $2: $(tail -n 5 "$out.log")"
    kill -INT "$tracer"
    wait "$tracer" || true
}

warm_up() { # CASE SIDE
    client_command "$2" "$1" "$WARMUP" 0
    in_netns "${COMMAND[@]/@PIDS/${SERVER_PID[$2]}}" >"$SCRATCH/warm.log" 2>&1 ||
        say "warm-up of $2 failed: $(tail -n 5 "$SCRATCH/warm.log")"
}

measure_group() { # GROUP CASE...
    local name side
    if (($# < 2)); then return 0; fi
    start_sides "$1"
    for name in "${@:2}"; do
        for side in baseline candidate; do
            say "$name  $side"
            warm_up "$name" "$side"
            time_case "$name" "$side"
            count_case "$name" "$side"
            python3 "$LIB/syscalls.py" record --case "$name" --side "$side" \
                --server "${SERVER_KIND[$side]}" --tool "$(tool_of "$name")" \
                --counter "$COUNTER" --scratch "$SCRATCH" >>"$SCRATCH/runs.jsonl"
        done
    done
    stop_servers
}

main() {
    local name load started
    local -a hot=() zipf=()
    parse_arguments "$@"
    check_machine
    OUT=${OUT:-$(fresh_result syscalls)}
    mkdir -p -- "$(dirname -- "$OUT")"
    if [[ -z $CANDIDATE ]]; then CANDIDATE=$(build ron-engine rond); fi
    if [[ -z $LOAD ]] && needs_ron_perf; then LOAD=$(build ron-perf ron-perf); fi
    started=$(date --iso-8601=seconds)
    load=$(load_average)
    open_scratch
    make_netns
    for name in "${CASES[@]}"; do
        if [[ $name == zipf ]]; then zipf+=("$name"); else hot+=("$name"); fi
    done
    measure_group hot "${hot[@]}"
    measure_group zipf "${zipf[@]}"
    python3 "$LIB/syscalls.py" report --runs "$SCRATCH/runs.jsonl" --out "$OUT" \
        --set started "$started" --set load_at_start "$load" --set commit "$(commit_of_checkout)" \
        --set baseline "${SERVER_VERSION[baseline]}" --set counter "$COUNTER" \
        --set candidate "${SERVER_VERSION[candidate]}" --set seconds "$RUN_SECONDS" \
        --set connections "$CONNECTIONS" --set congestion_control "$CONGESTION"
}

main "$@"
