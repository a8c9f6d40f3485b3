#!/usr/bin/env bash
# Measures the storage of one shard of rond beside fio on the same file system, interleaved.
#
# usage: perf/scripts/storage.sh --dir DIRECTORY [options]   (as root; see perf/README.md)
#
#   --dir DIRECTORY    where the test data go, on the file system to be measured; it is created,
#                      must not exist, and is removed at the end
#   --rounds N         rounds; each measures every case once on each side    (default 5)
#   --objects N        large objects, of 64 MiB                              (default 16)
#   --connections N    connections that read and write large objects         (default 4)
#   --small N          objects of 4 KiB from 64 connections; a twentieth of it from one
#                                                                            (default 8000)
#   --only LIST        cases, comma-separated, of read,write,small           (default all)
#   --profile          one more read and write under `perf record` of the node: the shares of
#                      hashing and of the kernel go to PATH.md
#   --out PATH         writes PATH.md and PATH.json  (default perf/results/<date>-storage)
#   --candidate PATH   a rond binary                              (default: builds this checkout)
#   --load PATH        a ron-perf binary                          (default: builds this checkout)
#
# Exit status: 0 measured; 1 could not measure; 2 wrong usage.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/netns.sh
source "$LIB/netns.sh"
# shellcheck source-path=SCRIPTDIR source=lib/profile.sh
source "$LIB/profile.sh"

# What compares with the bare disk must not be in the cache: it is far smaller than the data.
readonly CACHE=64MiB OBJECT_MIB=64 SMALL_CONNECTIONS=64
readonly READ_SEED=1

DIR="" ROUNDS=5 OBJECTS=16 CONNECTIONS=4 SMALL=8000 ONLY=read,write,small OUT=""
CANDIDATE="" LOAD="" DIR_MADE=no PROFILE=no
NODE_PID="" NODE_HTTP="" SEED=$((READ_SEED + 1))

parse_arguments() {
    local name
    while (($# > 0)); do
        case $1 in
        --help | -h)
            usage
            exit 0
            ;;
        --profile) PROFILE=yes ;;
        --dir | --rounds | --objects | --connections | --small | --only | --out | \
            --candidate | --load)
            want_value "$1" $# "${2:-}"
            set_option "$1" "$2"
            shift
            ;;
        *) misuse "unknown argument: $1" ;;
        esac
        shift
    done
    if [[ -z $DIR ]]; then misuse "--dir is needed"; fi
    for name in ${ONLY//,/ }; do
        if [[ ! $name =~ ^(read|write|small)$ ]]; then misuse "unknown case: $name"; fi
    done
}

set_option() { # NAME VALUE
    case $1 in
    --rounds | --objects | --connections | --small) want_number "$1" "$2" ;;&
    --dir) DIR=$2 ;;
    --rounds) ROUNDS=$2 ;;
    --objects) OBJECTS=$2 ;;
    --connections) CONNECTIONS=$2 ;;
    --small) SMALL=$2 ;;
    --only) ONLY=$2 ;;
    --out) OUT=${2%.md} ;;
    --candidate) CANDIDATE=$2 ;;
    --load) LOAD=$2 ;;
    esac
}

check_machine() {
    need_tools fio ip=iproute2 python3 taskset=util-linux
    need_root
    need_cores
    if [[ $PROFILE == yes ]]; then need_tools perf=linux-perf; fi
    if [[ -e $DIR ]]; then die "$DIR exists"; fi
    raise_limits
}

clean_up() {
    stop_node
    remove_netns
    if [[ $DIR_MADE == yes ]]; then rm -rf -- "$DIR"; fi
}

start_node() {
    mkfifo "$SCRATCH/ready"
    ip netns exec "$NETNS" taskset -c "$SERVER_CORE" "$CANDIDATE" \
        --data-dir "$DIR/node" --http 127.0.0.1:0 --https off --oap off \
        --admin 127.0.0.1:0 --cores "$SERVER_CORE" --cache "$CACHE" \
        >"$SCRATCH/ready" 2>"$SCRATCH/stderr" &
    NODE_PID=$!
    await_ready_line "$SCRATCH/ready" "$SCRATCH/stderr" "$CANDIDATE"
    NODE_HTTP=$(python3 "$LIB/field.py" http <<<"$READY_LINE")
}

stop_node() {
    if [[ -z $NODE_PID ]]; then return 0; fi
    stop_process "$NODE_PID"
    NODE_PID=""
}

load() { # ARGUMENTS of ron-perf
    in_netns taskset -c "$CLIENT_CORE" "$LOAD" "$1" --node "http://$NODE_HTTP" --json "${@:2}"
}

# fio on the core of the node. A file for each job, laid out by fio itself.
bare() { # NAME ARGUMENTS
    taskset -c "$SERVER_CORE" fio --name="$1" --directory="$DIR/fio" --ioengine=io_uring \
        --direct=1 --size="$((OBJECTS * OBJECT_MIB))M" --output-format=json "${@:2}"
}

bare_read() { bare read --rw=read --bs=64k --iodepth=32; }
bare_write() {
    rm -f -- "$DIR"/fio/write*
    bare write --rw=write --bs=1M --iodepth=8 --end_fsync=1
}
node_read() {
    load get --size "${OBJECT_MIB}MiB" --count "$OBJECTS" --seed "$READ_SEED" \
        --connections "$CONNECTIONS"
}
node_write() {
    load put --size "${OBJECT_MIB}MiB" --count "$OBJECTS" --seed "$SEED" \
        --connections "$CONNECTIONS"
}
node_small() { # COUNT CONNECTIONS
    load put --size 4KiB --count "$1" --seed "$SEED" --connections "$2"
}

# Runs a measurement and appends what it printed, what it was, and how busy others were.
measure() { # ROUND CASE SIDE FUNCTION [ARGUMENTS]
    local before
    SEED=$((SEED + 1))
    before=$(python3 "$LIB/storage.py" before --pid "$NODE_PID")
    if ! "${@:4}" >"$SCRATCH/printed" 2>"$SCRATCH/complaint"; then
        tail -n 5 "$SCRATCH/stderr" >&2
        die "$2 on $3 failed: $(cat "$SCRATCH/complaint")"
    fi
    python3 "$LIB/storage.py" record --round "$1" --case "$2" --side "$3" --pid "$NODE_PID" \
        --before "$before" --printed "$SCRATCH/printed" --out "$SCRATCH/runs.jsonl" >&2
}

measure_case() { # ROUND CASE
    local -a order=(bare node)
    local side
    # Who goes first alternates, so that a drift of the machine favours nobody.
    if (($1 % 2 == 0)); then order=(node bare); fi
    case $2 in
    small)
        measure "$1" small one node_small "$((SMALL / 20))" 1
        measure "$1" small many node_small "$SMALL" "$SMALL_CONNECTIONS"
        ;;
    read)
        for side in "${order[@]}"; do
            # All of it once before, through a cache that holds next to nothing of it: a virtual
            # machine that gave unused memory back to its host pays for taking it again.
            "${side}_read" >/dev/null
            measure "$1" read "$side" "${side}_read"
        done
        ;;
    *) for side in "${order[@]}"; do measure "$1" "$2" "$side" "${side}_$2"; done ;;
    esac
}

profile_node() { # CASE
    local data="$SCRATCH/perf.data" load_pid
    SEED=$((SEED + 1))
    "node_$1" >/dev/null &
    load_pid=$!
    # Ends with the load.
    perf record --quiet --event "$(perf_event)" --pid "$NODE_PID" --output "$data" -- \
        tail --pid "$load_pid" --follow /dev/null 2>"$SCRATCH/perf.log" ||
        say "perf record: $(cat "$SCRATCH/perf.log")"
    wait "$load_pid" || die "the load of the profile failed"
    append_shares "$1" "$data"
}

write_report() { # LOAD_AT_START STARTED
    python3 "$LIB/storage.py" report --runs "$SCRATCH/runs.jsonl" --out "$OUT" \
        --profiles "$SCRATCH/profiles.jsonl" \
        --set started "$2" --set load_at_start "$1" --set commit "$(commit_of_checkout)" \
        --set node "$("$CANDIDATE" --version | head -n 1)" \
        --set node_sha256 "$(sha256_of "$CANDIDATE")" \
        --set fio "$(fio --version)" \
        --set file_system "$(df --output=fstype,source "$DIR" | tail -n 1 | xargs)" \
        --set rounds "$ROUNDS" --set objects "$OBJECTS" --set object_mib "$OBJECT_MIB" \
        --set connections "$CONNECTIONS" --set small_connections "$SMALL_CONNECTIONS" \
        --set cache "$CACHE" --set congestion_control "$CONGESTION" \
        --set server_core "$SERVER_CORE" --set client_core "$CLIENT_CORE"
}

main() {
    local name load_before started round
    parse_arguments "$@"
    check_machine
    if [[ -z $OUT ]]; then OUT=$(fresh_result storage); fi
    mkdir -p -- "$(dirname -- "$OUT")"
    if [[ -z $CANDIDATE ]]; then CANDIDATE=$(build ron-engine rond); fi
    if [[ -z $LOAD ]]; then LOAD=$(build ron-perf ron-perf); fi
    started=$(date --iso-8601=seconds)
    load_before=$(load_average)
    open_scratch
    mkdir -p -- "$DIR/fio" "$DIR/node"
    DIR_MADE=yes
    make_netns
    start_node
    if [[ $ONLY == *read* ]]; then
        say "laying out what is read"
        bare read --rw=read --bs=64k --create_only=1 >/dev/null
        load put --size "${OBJECT_MIB}MiB" --count "$OBJECTS" --seed "$READ_SEED" \
            --connections "$CONNECTIONS" >/dev/null
    fi
    for ((round = 1; round <= ROUNDS; round++)); do
        for name in ${ONLY//,/ }; do measure_case "$round" "$name"; done
    done
    : >"$SCRATCH/profiles.jsonl"
    if [[ $PROFILE == yes ]]; then
        for name in ${ONLY//,/ }; do
            # The load of small ones ends before it could be looked at.
            if [[ $name != small ]]; then profile_node "$name"; fi
        done
    fi
    write_report "$load_before" "$started"
}

main "$@"
