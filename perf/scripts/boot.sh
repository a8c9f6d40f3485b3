#!/usr/bin/env bash
# Measures how long one shard of rond takes to be ready over many small objects, with its index and
# without.
#
# usage: perf/scripts/boot.sh --dir DIRECTORY [options]       (see perf/README.md)
#
#   --dir DIRECTORY    where the test data go; it must not exist, and is removed at the end
#   --objects N        objects                                               (default 1000000)
#   --size N           bytes of each                                         (default 100)
#   --rounds N         boots with the index; half as many, rounded up, without (default 5)
#   --out PATH         writes PATH.md             (default perf/results/<date>-boot)
#   --candidate PATH   a rond binary                              (default: builds this checkout)
#   --load PATH        a ron-perf binary                          (default: builds this checkout)
#
# Exit status: 0 measured; 1 could not measure; 2 wrong usage.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/onenode.sh
source "$LIB/onenode.sh"

OBJECTS=1000000 SIZE=100 ROUNDS=5 TOOK=""
OPTIONS+=([--objects]=OBJECTS [--size]=SIZE [--rounds]=ROUNDS)
prepare boot "$@"

# Starts the node; TOOK is the time to its ready line, in milliseconds.
time_start() {
    local began
    began=$(date +%s%N)
    start_node
    TOOK=$((($(date +%s%N) - began) / 1000000))
}
median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }

start_node
"$LOAD" put --node "http://$(address_of http)" --size "$SIZE" --count "$OBJECTS" --connections 64 >&2
stop_node
with=() without=()
for ((round = 0; round < ROUNDS; round++)); do
    time_start
    with+=("$TOOK")
    stop_node
    if ((round % 2 == 0)); then
        rm -rf -- "$DIR"/data/p*/index
        time_start
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
