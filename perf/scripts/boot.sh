#!/usr/bin/env bash
# Measures how long one shard of rond takes to be ready over many small objects, with its index and
# without.
#
# usage: perf/scripts/boot.sh --dir DIRECTORY [options]       (see perf/README.md)
#
#   --dir DIRECTORY    where the test data go; it must not exist, and is removed at the end
#   --objects N        objects                                               (default 1000000)
#   --size N           bytes of each                                         (default 100)
#   --rounds N         boots with the index; one fewer than half without     (default 5)
#   --out PATH         writes PATH.md             (default perf/results/<date>-boot)
#   --candidate PATH   a rond binary                              (default: builds this checkout)
#   --load PATH        a ron-perf binary                          (default: builds this checkout)
#
# Exit status: 0 measured; 1 could not measure; 2 wrong usage.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

DIR="" OBJECTS=1000000 SIZE=100 ROUNDS=5 OUT="" CANDIDATE="" LOAD="" NODE_PID="" NODE_HTTP="" TOOK=""

while (($# > 0)); do
    case $1 in
    --help | -h)
        usage
        exit 0
        ;;
    esac
    want_value "$1" $# "${2:-}"
    case $1 in
    --dir) DIR=$2 ;;
    --objects) OBJECTS=$2 ;;
    --size) SIZE=$2 ;;
    --rounds) ROUNDS=$2 ;;
    --out) OUT=$2 ;;
    --candidate) CANDIDATE=$2 ;;
    --load) LOAD=$2 ;;
    *) misuse "unknown option $1" ;;
    esac
    shift 2
done
[[ -n $DIR ]] || misuse "--dir is missing"
[[ ! -e $DIR ]] || misuse "$DIR exists"
OUT=${OUT:-$ROOT/perf/results/$(date +%F)-boot}
if [[ -z $CANDIDATE ]]; then CANDIDATE=$(build ron-engine rond); fi
if [[ -z $LOAD ]]; then LOAD=$(build ron-perf ron-perf); fi

clean_up() {
    if [[ -n $NODE_PID ]]; then kill -KILL "$NODE_PID" 2>/dev/null || true; fi
    rm -rf -- "$DIR"
}
trap clean_up EXIT
mkdir -p "$DIR"

# Starts the node; TOOK is the time to its ready line, in milliseconds.
start_node() {
    local began line
    began=$(date +%s%N)
    coproc NODE { exec "$CANDIDATE" --data-dir "$DIR/data" --cores 0 --cache 256MiB \
        --http 127.0.0.1:0 --oap off --admin 127.0.0.1:0 --log warn 2>>"$DIR/log"; }
    IFS= read -r line <&"${NODE[0]}"
    TOOK=$((($(date +%s%N) - began) / 1000000))
    NODE_HTTP=$(sed -n 's/.*"http":"\([^"]*\)".*/\1/p' <<<"$line")
}
stop_node() {
    local pid=$NODE_PID
    kill -TERM "$pid"
    wait "$pid" || die "the node did not end well"
    NODE_PID=""
}
median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }

start_node
"$LOAD" put --node "http://$NODE_HTTP" --size "$SIZE" --count "$OBJECTS" --connections 64 >&2
stop_node
with=() without=()
for ((round = 0; round < ROUNDS; round++)); do
    start_node
    with+=("$TOOK")
    stop_node
    if ((round % 2 == 1)); then
        rm -rf -- "$DIR"/data/p*/index
        start_node
        without+=("$TOOK")
        stop_node
    fi
done
bytes=$(du -sb --exclude=index "$DIR/data" | cut -f1)
{
    echo "# Boot over many small objects"
    echo
    echo "* Date: $(date -u +%FT%TZ); commit: $(commit_of_checkout)"
    echo "* $(uname -sr), $(nproc) cores; load at the end: $(load_average)"
    echo "* $OBJECTS objects of $SIZE bytes, $bytes bytes on disk without the index; one shard"
    echo
    echo "| boot | median | all, in ms |"
    echo "|---|---:|---|"
    echo "| with the index | $(median "${with[@]}") ms | ${with[*]} |"
    echo "| index deleted, rebuilt from the log | $(median "${without[@]}") ms | ${without[*]} |"
    echo
    echo "From the start of the process to its ready line. The files were in the page cache where the"
    echo "kernel had them there: the log is read past it, LMDB through it."
} | tee "$OUT.md"
