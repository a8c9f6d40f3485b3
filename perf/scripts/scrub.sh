#!/usr/bin/env bash
# Measures what the scrub costs those who read: 4 KiB GETs from one shard of rond, with the scrub at
# its default pace and without, interleaved.
#
# usage: perf/scripts/scrub.sh --dir DIRECTORY [options]       (see perf/README.md)
#
#   --dir DIRECTORY    where the test data go; it must not exist, and is removed at the end
#   --rounds N         rounds; each measures both ways                       (default 5)
#   --seconds N        length of a measured run                              (default 5)
#   --connections N    connections of the client                             (default 16)
#   --rate SIZE        the scrub's pace, a second                            (default 32MiB)
#   --out PATH         writes PATH.md             (default perf/results/<date>-scrub)
#   --candidate PATH   a rond binary                              (default: builds this checkout)
#   --load PATH        a ron-perf binary                          (default: builds this checkout)
#
# Exit status: 0 measured; 1 could not measure; 2 wrong usage.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/onenode.sh
source "$LIB/onenode.sh"

ROUNDS=5 SECONDS_EACH=5 CONNECTIONS=16 RATE=32MiB
OPTIONS+=([--rounds]=ROUNDS [--seconds]=SECONDS_EACH [--connections]=CONNECTIONS [--rate]=RATE)
prepare scrub "$@"
NODE_OPTIONS=(--storage-scrub-rate "$RATE")
start_node
http=$(address_of http)
admin=$(address_of admin)

metric() { curl -s "http://$admin/metrics" | sed -n "s/^$1\({[^}]*}\)\? \([0-9]*\).*/\2/p" | head -1; }

# More than a run with the scrub can read: it goes on all the time.
"$LOAD" put --node "http://$http" --size 1MiB --count 512 --connections 4 >&2
head -c 4096 /dev/urandom >"$DIR/object"
addr=$(curl -s --request PUT --data-binary "@$DIR/object" "http://$http/o/" |
    sed 's/.*"addr":"\([^"]*\)".*/\1/')

# One run of wrk: requests/s, p50 and p99 in µs.
run() {
    taskset -c 1 wrk -t1 -c"$CONNECTIONS" -d"${SECONDS_EACH}s" --latency "http://$http/o/$addr" |
        awk '
            function us(text) {
                if (text ~ /us$/) return text + 0
                if (text ~ /ms$/) return text * 1000
                return text * 1000000
            }
            $1 == "50%" { p50 = us($2) }
            $1 == "99%" { p99 = us($2) }
            $1 == "Requests/sec:" { rate = $2 }
            END { printf "%d %d %d\n", rate, p50, p99 }'
}

rows="" pace=0
for ((round = 1; round <= ROUNDS; round++)); do
    off=$(run)
    curl -s -X POST "http://$admin/scrub" >/dev/null
    before=$(metric ron_scrub_bytes_total)
    on=$(run)
    after=$(metric ron_scrub_bytes_total)
    pace=$(((after - before) / SECONDS_EACH / 1048576))
    rows+="| $round | ${off// / | } | ${on// / | } | $pace |"$'\n'
    # The next run without it waits for its end.
    until [[ $(metric ron_scrub_running) == 0 ]]; do sleep 1; done
done
stop_node
column() { cut -d'|' -f"$1" <<<"${rows%$'\n'}" | tr -d ' ' | sort -n | sed -n "$(((ROUNDS + 1) / 2))p"; }
{
    echo "# What the scrub costs readers"
    echo
    echo "* Date: $(date -u +%FT%TZ); commit: $(commit_of_checkout)"
    echo "* $(uname -sr), $(nproc) cores; one shard on core 0, wrk on core 1, $CONNECTIONS connections"
    echo "* 4 KiB from the cache, beside 512 MiB that the scrub reads at $RATE/s at most"
    echo
    echo "| round | off: requests/s | p50 µs | p99 µs | on: requests/s | p50 µs | p99 µs | MiB/s read |"
    echo "|---:|---:|---:|---:|---:|---:|---:|---:|"
    printf '%s' "$rows"
    echo "| median | $(column 3) | $(column 4) | $(column 5) | $(column 6) | $(column 7) | $(column 8) | $(column 9) |"
} | tee "$OUT.md"
