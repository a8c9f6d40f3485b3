# shellcheck shell=bash
# What every script here needs: words to the user, a look at the machine, builds, a scratch
# directory that is removed at the end, and processes that are ended by their id.
#
# Sourced first, by a script whose head comment is its usage text. Sets ROOT, LIB, SCRIPT and
# SCRATCH; a script that makes more than its scratch directory defines `clean_up`, which runs
# first when the script ends, however it ends. Nothing is measured here.
#
# shellcheck disable=SC2034 # The script that sources this reads READY_LINE.

SCRIPT=$(basename -- "$0")
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../../.." && pwd)
LIB="$ROOT/perf/scripts/lib"
SCRATCH=""
readonly SCRIPT ROOT LIB
readonly SERVER_CORE=0 CLIENT_CORE=1
readonly READY_SECONDS_MAX=60 STOP_SECONDS_MAX=30
export PYTHONDONTWRITEBYTECODE=1

say() { printf '%s\n' "$*" >&2; }
die() {
    say "$SCRIPT: $*"
    exit 1
}
usage() { sed -n '2,/^set -euo/{/^#/s/^# \{0,1\}//p}' "$0"; }
misuse() {
    say "$SCRIPT: $*"
    usage >&2
    exit 2
}

want_value() { # NAME COUNT_OF_ARGUMENTS VALUE
    if (($2 < 2)) || [[ -z $3 ]]; then misuse "$1 wants a value"; fi
}
want_number() { # NAME VALUE
    if ! [[ $2 =~ ^[1-9][0-9]{0,6}$ ]]; then misuse "$1 wants a number above 0, not $2"; fi
}

# Every word is TOOL or TOOL=PACKAGE where Debian's package has another name.
need_tools() {
    local word
    local -a missing=()
    for word in "$@"; do
        if ! type -P "${word%%=*}" >/dev/null; then missing+=("${word#*=}"); fi
    done
    if ((${#missing[@]} > 0)); then
        die "missing tools; install them with: apt-get install ${missing[*]}"
    fi
}

need_root() {
    if ((EUID != 0)); then die "must be root, to make a network namespace"; fi
}

need_cores() {
    local core
    for core in "$SERVER_CORE" "$CLIENT_CORE"; do
        if ! taskset -c "$core" true 2>/dev/null; then
            die "needs cores $SERVER_CORE and $CLIENT_CORE"
        fi
    done
}

# io_uring and the arena lock memory; a login shell's 8 MiB may not do. The server says so itself
# when the most that can be had here is too little.
raise_limits() {
    ulimit -l unlimited 2>/dev/null || ulimit -l "$(ulimit -H -l)"
    ulimit -n "$(ulimit -H -n)"
}

# Prints the path of the binary.
build() { # PACKAGE BINARY
    if ! type -P cargo >/dev/null; then die "no cargo in root's PATH; name the binaries"; fi
    say "building $2"
    (cd "$ROOT" && cargo build --release --package "$1" --bin "$2" \
        --message-format json-render-diagnostics | python3 "$LIB/field.py" executable)
}

commit_of_checkout() {
    local commit
    # Root often measures a checkout that belongs to somebody else.
    local -a git=(git -c 'safe.directory=*' -C "$ROOT" --no-optional-locks)
    commit=$("${git[@]}" rev-parse --short=12 HEAD 2>/dev/null) || commit=unknown
    # Results do not change what is measured.
    if [[ -n $("${git[@]}" status --porcelain -- . ':!perf/results' 2>/dev/null) ]]; then
        commit+=", modified"
    fi
    printf '%s' "$commit"
}

# The stem of a new result. A result is a record: an earlier one of the day is kept.
fresh_result() { # NAME
    local stem suffix=1
    stem="$ROOT/perf/results/$(date +%F)-$1"
    local out=$stem
    while [[ -e $out.md ]]; do out="$stem-$((++suffix))"; done
    printf '%s' "$out"
}

load_average() { cut -d ' ' -f 1-3 /proc/loadavg; }
sha256_of() { sha256sum "$1" | cut -d ' ' -f 1; }

# Makes SCRATCH, and sees to it that everything is cleaned up at the end.
open_scratch() {
    trap close_scratch EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    SCRATCH=$(mktemp -d)
}

close_scratch() {
    if declare -F clean_up >/dev/null; then clean_up; fi
    if [[ -n $SCRATCH ]]; then rm -rf -- "$SCRATCH"; fi
}

# The ready line that a server writes into a pipe. The pipe stays open until we exit, so that the
# server never writes into a closed one. Sets READY_LINE.
await_ready_line() { # PIPE STDERR NAME
    local pipe
    READY_LINE=""
    exec {pipe}<"$1"
    if ! IFS= read -r -t "$READY_SECONDS_MAX" -u "$pipe" READY_LINE; then
        cat "$2" >&2
        die "$3 printed no ready line"
    fi
}

# Asks a child of ours to end, and makes it end when it does not.
stop_process() { # PID
    local deadline=$((SECONDS + STOP_SECONDS_MAX))
    kill -TERM "$1" 2>/dev/null || true
    while kill -0 "$1" 2>/dev/null; do
        if ((SECONDS >= deadline)); then kill -KILL "$1" 2>/dev/null || true; fi
        sleep 0.05
    done
    wait "$1" 2>/dev/null || true
}
