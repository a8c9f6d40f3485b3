#!/usr/bin/env bash
# Measures what a shard of rond with millions of objects costs: cold GETs and durable PUTs among
# them, memory against the bill, the longest turn, and boots with the index and without. With a
# second binary, both in the same run, in turns.
#
# usage: perf/scripts/many.sh --dir DIRECTORY [options]       (see perf/README.md)
#
#   --dir DIRECTORY    where the test data go; it must not exist, and is removed at the end
#   --objects N        objects of 100 bytes                                  (default 8000000)
#   --cold N           objects of 4 KiB beside them, far more than are cached (default 200000)
#   --rounds N         rounds of GETs, and boots with the index; half as many, rounded up,
#                      without it                                            (default 5)
#   --out PATH         writes PATH.md             (default perf/results/<date>-many)
#   --candidate PATH   a rond binary                              (default: builds this checkout)
#   --baseline PATH    another one, measured beside it
#   --load PATH        a ron-perf binary                          (default: builds this checkout)
#
# Exit status: 0 measured; 1 could not measure; 2 wrong usage.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/onenode.sh
source "$LIB/onenode.sh"

OBJECTS=8000000 COLD=200000 ROUNDS=5 BASELINE="" TOOK=""
OPTIONS+=([--objects]=OBJECTS [--cold]=COLD [--rounds]=ROUNDS [--baseline]=BASELINE)
prepare many "$@"
CACHE=64MiB NODE_OPTIONS=(--storage-scrub-rate 0)
sides=(candidate)
[[ -z $BASELINE ]] || sides=(baseline candidate)
declare -A binary=([candidate]=$CANDIDATE [baseline]=$BASELINE) values=()
WHOLE=$DIR

# The node of one side from here on.
turn_to() { # SIDE
    CANDIDATE=${binary[$1]} DIR=$WHOLE/$1
    mkdir -p "$DIR"
}
note() { values[$1]+="${values[$1]:+ }$2"; } # NAME VALUE
time_start() {
    local began
    began=$(date +%s%N)
    start_node
    TOOK=$((($(date +%s%N) - began) / 1000000))
}
load() { taskset -c "$CLIENT_CORE" "$LOAD" "$1" --node "http://$(address_of http)" --connections 64 --json "${@:2}"; }
rate() { python3 -c 'import json,sys; d=json.load(sys.stdin); print(round(d["rps"]))'; }
metric() { # NAME
    curl -s "http://$(address_of admin)/metrics" |
        awk -v name="$1" '{ sub(/{.*}/, "", $1) } $1 == name { sum += $2 } END { printf "%.6g\n", sum }'
}
resident() { # KIND
    awk -v kind="$1:" '$1 == kind { print int($2 / 1024) }' "/proc/$NODE_PID/status"
}
# Microseconds of the processor that the node took so far.
spent() { awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); print int(($12 + $13) * 1e6 / hz) }' "/proc/$NODE_PID/stat"; }

fill() { # SIDE
    turn_to "$1"
    start_node
    note "$1 empty" "$(resident RssAnon)"
    note "$1 put100" "$(load put --size 100 --count "$OBJECTS" | rate)"
    note "$1 put4k" "$(load put --size 4KiB --count "$COLD" | rate)"
    note "$1 anonymous" "$(resident RssAnon)"
    note "$1 mapped" "$(resident RssFile)"
    note "$1 bill" "$(metric ron_memory_bill_bytes | awk '{ print int($1 / 1048576) }')"
    note "$1 turn" "$(metric ron_shard_stall_seconds | awk '{ printf "%.1f", $1 * 1000 }')"
    stop_node
}

get_cold() { # SIDE
    local before hits
    turn_to "$1"
    time_start
    note "$1 boot" "$TOOK"
    before=$(spent)
    note "$1 get" "$(load get --size 4KiB --count "$COLD" | rate)"
    note "$1 cpu" "$(python3 -c "print(round(($(spent) - $before) / $COLD, 1))")"
    note "$1 served_anonymous" "$(resident RssAnon)"
    note "$1 served_mapped" "$(resident RssFile)"
    stop_node
}

boot_without() { # SIDE
    turn_to "$1"
    rm -rf -- "$DIR"/data/p*/index
    time_start
    note "$1 rebuilt" "$TOOK"
    stop_node
}

for side in "${sides[@]}"; do fill "$side"; done
for ((round = 0; round < ROUNDS; round++)); do
    order=("${sides[@]}")
    if ((round % 2 == 1 && ${#sides[@]} == 2)); then order=(candidate baseline); fi
    for side in "${order[@]}"; do get_cold "$side"; done
    if ((round % 2 == 0)); then
        for side in "${order[@]}"; do boot_without "$side"; done
    fi
done

median() { tr ' ' '\n' | sort -g | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }
row() { # TITLE NAME
    local side line="| $1 |"
    for side in "${sides[@]}"; do
        local all=${values[$side $2]}
        line+=" $(median <<<"$all")"
        [[ $all != *" "* ]] || line+=" (${all// /, })"
        line+=" |"
    done
    echo "$line"
}
{
    echo "# A shard with millions of objects"
    echo
    echo "* Date: $(date -u +%FT%TZ); commit: $(commit_of_checkout)"
    echo "* $(uname -sr), $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
    echo "* load at the end: $(load_average)"
    echo "* one shard on core $SERVER_CORE, cache 64 MiB: $OBJECTS objects of 100 bytes, $COLD of 4 KiB; 64 connections"
    for side in "${sides[@]}"; do
        echo "* $side: sha256 $(sha256_of "${binary[$side]}" | cut -c1-16)…"
    done
    echo
    printf '| what |'; printf ' %s |' "${sides[@]}"; echo
    printf '|---|'; printf '%s' "${sides[@]/*/---:|}"; echo
    row "cold GET of 4 KiB: CPU of the node, µs" cpu
    row "cold GET of 4 KiB, requests/s" get
    row "durable PUT of 4 KiB, objects/s" put4k
    row "durable PUT of 100 bytes, objects/s" put100
    row "boot with the index, ms" boot
    row "boot without, ms" rebuilt
    row "anonymous memory: the empty node, MiB" empty
    row "anonymous memory: when all was put, MiB" anonymous
    row "mapped files: when all was put, MiB" mapped
    row "anonymous memory: a boot later, with its GETs, MiB" served_anonymous
    row "mapped files: a boot later, with its GETs, MiB" served_mapped
    row "memory bill, MiB" bill
    row "longest turn while all was put, ms" turn
    echo
    echo "Medians, and all values. Boots are timed from the start of the process to its ready line; segments"
    echo "are read past the page cache."
} | tee "$OUT.md"
