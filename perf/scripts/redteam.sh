#!/usr/bin/env bash
# Runs the floods of engine/tests, one at a time, and makes a table of the figures they print: what
# is resident and what another client meets before, during and after each.
#
# usage: perf/scripts/redteam.sh [options]                    (see perf/README.md)
#
#   --release          builds the release profile            (default: debug)
#   --shared           says in the table that others used the machine meanwhile
#   --out PATH         writes PATH.md             (default perf/results/<date>-redteam)
#
# Exit status: 0 all cases passed; 1 one failed, or printed no figures; 2 wrong usage.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

PROFILE=debug SHARED="" OUT=$(fresh_result redteam)
while (($# > 0)); do
    case $1 in
    --help | -h)
        usage
        exit 0
        ;;
    --release) PROFILE=release ;;
    --shared) SHARED=", which others used meanwhile" ;;
    --out)
        want_value "$1" $# "${2:-}"
        OUT=$2
        shift
        ;;
    *) misuse "unknown argument: $1" ;;
    esac
    shift
done
need_tools cargo cc curl nginx

# Those whose tests flood a node.
TESTS=(answers blocks conns files hang hostile proxies readers redteam)
cargo=(cargo test --workspace --no-fail-fast "${TESTS[@]/#/--test=}")
if [[ $PROFILE == release ]]; then cargo+=(--release); fi

open_scratch
commit=$(commit_of_checkout)
said="$SCRATCH/said"
status=0
(cd "$ROOT" && "${cargo[@]}" -- --test-threads=1 --nocapture) >"$said" 2>&1 || status=1
grep -E -A 3 'panicked|^error' "$said" >&2 || true
failed=$(sed -n "s/^thread '\([^']*\)'.* panicked at .*/\1/p" "$said" | sort -u | paste -sd ' ')
for name in "${TESTS[@]}"; do
    grep -q "redteam | $name::" "$said" || die "$name printed no figures"
done
{
    echo "# What floods cost the node and others"
    echo
    echo "* Date: $(date -u +%FT%TZ); commit: $commit; $PROFILE build"
    echo "* $(uname -sr), $(nproc) cores$SHARED; load at the end: $(load_average)"
    echo "* Each case has a node of its own, its cache full, and its flood on the same cores: the times"
    echo "  show who is served, not how fast. They are of one client's GET, HEAD and 404, on a"
    echo "  connection that is kept and on new ones."
    echo "* Resident is anonymous and shared memory: at the end of before and after, the most of during."
    if [[ -n $failed ]]; then echo "* FAILED: $failed"; fi
    echo
    echo "| case | resident, MiB: before / during / after | p99, ms: before / during / after | bill |"
    echo "|---|---:|---:|---:|"
    grep -o 'redteam | .*' "$said" | sort |
        sed -E 's/^redteam \| (.*) \| (.*) MiB \| (.*) ms \| (.*)$/| `\1` | \2 | \3 | \4 |/; s,/, / ,g'
} | tee "$OUT.md"
exit "$status"
