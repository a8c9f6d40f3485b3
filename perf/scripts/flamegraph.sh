#!/usr/bin/env bash
# Makes flamegraphs of a running rond: one of the whole process and one of each thread.
#
# usage: perf/scripts/flamegraph.sh --pid PID | --case NAME [options]   (as root; perf/README.md)
#
#   --pid PID          a node that runs already, under whatever load it has
#   --case NAME        starts a node and the load of this case of compare.sh (but for shards2)
#   --seconds N        length of the recording                              (default 10)
#   --out DIR          where the pictures go             (default /tmp/flamegraph-<case or pid>)
#   --cores LIST       with --case: the node's shards, on these cores        (default 0)
#   --connections N    with --case: of the client, where the case sets none  (default 16)
#   --frequency N      samples a second of each thread                      (default 499)
#   --call-graph HOW   dwarf, or fp for a build with frame pointers         (default dwarf)
#   --candidate PATH   a rond binary                          (default: builds this checkout)
#   --load PATH        a ron-perf binary                      (default: builds this checkout)
#
# The pictures are drawn by inferno, a tool of its own: cargo install inferno. Without it the
# recording and a list of the top symbols are left in DIR, and the status is 1.
#
# Exit status: 0 drawn; 1 could not draw; 2 wrong usage.
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

PID="" CASE="" RUN_SECONDS=10 OUT="" FREQUENCY=499 CALL_GRAPH=dwarf CANDIDATE="" LOAD_PID=""
# Bytes of stack that are kept of each sample: deep enough for the shard's loop.
readonly STACK_LEN=16384
# Before the recording, the load has warmed the node for so long.
readonly WARMUP=3

parse_arguments() {
    while (($# > 0)); do
        case $1 in
        --help | -h)
            usage
            exit 0
            ;;
        --pid | --case | --seconds | --out | --cores | --connections | --frequency | \
            --call-graph | --candidate | --load)
            want_value "$1" $# "${2:-}"
            set_option "$1" "$2"
            shift
            ;;
        *) misuse "unknown argument: $1" ;;
        esac
        shift
    done
    if [[ -z $PID && -z $CASE ]] || [[ -n $PID && -n $CASE ]]; then
        misuse "one of --pid and --case is needed"
    fi
    if [[ -n $CASE ]]; then parse_cases "$CASE"; fi
    if [[ $CASE == shards2 || $CASE == *,* ]]; then misuse "no case for this: $CASE"; fi
}

set_option() { # NAME VALUE
    case $1 in
    --pid | --seconds | --connections | --frequency) want_number "$1" "$2" ;;&
    --pid) PID=$2 ;;
    --case) CASE=$2 ;;
    --seconds) RUN_SECONDS=$2 ;;
    --out) OUT=$2 ;;
    --cores) ROND_CORES=$2 ;;
    --connections) CONNECTIONS=$2 ;;
    --frequency) FREQUENCY=$2 ;;
    --call-graph)
        if [[ $2 != dwarf && $2 != fp ]]; then misuse "$1 is dwarf or fp, not $2"; fi
        CALL_GRAPH=$2
        ;;
    --candidate) CANDIDATE=$2 ;;
    --load) LOAD=$2 ;;
    esac
}

clean_up() {
    if [[ -n $LOAD_PID ]]; then kill "$LOAD_PID" 2>/dev/null || true; fi
    stop_servers
    remove_netns
}

start_node_and_load() {
    local group
    need_tools wrk curl ip=iproute2 taskset=util-linux
    need_root
    need_cores
    raise_limits
    if [[ -z $CANDIDATE ]]; then CANDIDATE=$(build ron-engine rond); fi
    if [[ -z $LOAD ]] && needs_ron_perf; then LOAD=$(build ron-perf ron-perf); fi
    group=$(group_of "$CASE")
    make_netns
    make_objects "$group"
    start_server candidate "$CANDIDATE" "$group"
    PID=${SERVER_PID[candidate]}
    # An open loop needs a rate; this one keeps a shard about half busy on a small machine.
    OPEN_RATE=${OPEN_RATE:-50000}
    start_load candidate "$CASE" $((RUN_SECONDS + WARMUP + 2))
    sleep "$WARMUP"
}

record() { # DATA
    local event how=$CALL_GRAPH
    if [[ $how == dwarf ]]; then how+=",$STACK_LEN"; fi
    event=$(perf_event)
    say "recording $PID for $RUN_SECONDS s: $event, $FREQUENCY Hz, call graph by $CALL_GRAPH"
    perf record --quiet --event "$event" --freq "$FREQUENCY" --call-graph "$how" --pid "$PID" \
        --output "$1" -- sleep "$RUN_SECONDS" 2>"$SCRATCH/perf.log" ||
        die "perf record: $(tail -n 5 "$SCRATCH/perf.log")"
}

# One folded file of everything, whose first frame is the thread, and one of each thread.
fold() { # DATA
    perf script --no-inline --input "$1" 2>"$SCRATCH/script.log" |
        inferno-collapse-perf --tid >"$OUT/all.folded" 2>>"$SCRATCH/script.log" ||
        die "folding: $(tail -n 5 "$SCRATCH/script.log")"
    awk -v out="$OUT" '{
        thread = $0
        sub(/;.*/, "", thread)
        sub(/-[?]\//, "-", thread)
        gsub(/[^A-Za-z0-9_.-]/, "_", thread)
        print > (out "/thread-" thread ".folded")
    }' "$OUT/all.folded"
}

draw() { # FOLDED TITLE
    inferno-flamegraph --title "$2" --countname samples --hash "$1" >"${1%.folded}.svg"
    say "drawn: ${1%.folded}.svg"
}

main() {
    local data file name what
    parse_arguments "$@"
    need_tools perf=linux-perf python3
    OUT=${OUT:-/tmp/flamegraph-${CASE:-$PID}}
    mkdir -p -- "$OUT"
    rm -f -- "$OUT"/*.folded "$OUT"/*.svg
    open_scratch
    data="$OUT/perf.data"
    if [[ -n $CASE ]]; then start_node_and_load; fi
    if ! kill -0 "$PID" 2>/dev/null; then die "no process $PID"; fi
    record "$data"
    perf report --stdio --no-inline --no-children --call-graph none --sort comm,symbol \
        --percent-limit 0.3 --input "$data" 2>/dev/null | sed '/^#/d;/^[[:space:]]*$/d' \
        >"$OUT/top.txt"
    if ! type -P inferno-flamegraph >/dev/null; then
        die "no inferno: cargo install inferno; the recording is $data, the top in $OUT/top.txt"
    fi
    fold "$data"
    what="${CASE:+case $CASE, }$(date +%F)"
    draw "$OUT/all.folded" "rond, all threads ($what)"
    for file in "$OUT"/thread-*.folded; do
        name=${file##*/thread-}
        draw "$file" "rond, ${name%.folded} ($what)"
    done
}

main "$@"
