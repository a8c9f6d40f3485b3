#!/usr/bin/env bash
# Records the host as JSON: what a number measured here was measured on.
#
# usage: perf/scripts/host.sh [options]                       (see perf/README.md)
#
#   --out PATH         writes PATH instead of stdout
#   --congestion NAME  the congestion control that is measured under, where it is not the host's
#
# It reads /proc and /sys and changes nothing; root sees a little more than others.
# Exit status: 0 recorded; 1 could not record; 2 wrong usage.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

OUT="" CONGESTION=""
while (($# > 0)); do
    case $1 in
    --help | -h)
        usage
        exit 0
        ;;
    --out | --congestion) want_value "$1" $# "${2:-}" ;;&
    --out) OUT=$2 ;;
    --congestion) CONGESTION=$2 ;;
    *) misuse "unknown argument: $1" ;;
    esac
    shift 2
done
need_tools python3
raise_limits
facts=$(python3 "$LIB/host.py" ${CONGESTION:+--congestion "$CONGESTION"})
if [[ -n $OUT ]]; then
    printf '%s\n' "$facts" >"$OUT"
else
    printf '%s\n' "$facts"
fi
