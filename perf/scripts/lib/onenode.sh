# shellcheck shell=bash
# One node over a directory of its own that is removed at the end: what many.sh and scrub.sh share.
# Sourced after common.sh, by a script that has the variables of its options and, in OPTIONS, which
# flag sets which.
#
# shellcheck disable=SC2034 # The script that sources this reads them.

DIR="" OUT="" CANDIDATE="" LOAD="" NODE_PID="" READY="" CACHE=256MiB
declare -a NODE_OPTIONS=()
declare -A OPTIONS=([--dir]=DIR [--out]=OUT [--candidate]=CANDIDATE [--load]=LOAD)

# Takes the options, makes the directory, and builds what was not named.
prepare() { # NAME_OF_RESULT ARGUMENTS...
    local result=$1
    shift
    while (($# > 0)); do
        case $1 in
        --help | -h)
            usage
            exit 0
            ;;
        esac
        if [[ -z ${OPTIONS[$1]:-} ]]; then misuse "unknown option $1"; fi
        want_value "$1" $# "${2:-}"
        printf -v "${OPTIONS[$1]}" '%s' "$2"
        shift 2
    done
    [[ -n $DIR ]] || misuse "--dir is missing"
    [[ ! -e $DIR ]] || misuse "$DIR exists"
    OUT=${OUT:-$ROOT/perf/results/$(date +%F)-$result}
    if [[ -z $CANDIDATE ]]; then CANDIDATE=$(build ron-engine rond); fi
    if [[ -z $LOAD ]]; then LOAD=$(build ron-perf ron-perf); fi
    trap remove_all EXIT
    mkdir -p "$DIR"
}

remove_all() {
    if [[ -n ${NODE_PID:-} ]]; then kill -KILL "$NODE_PID" 2>/dev/null || true; fi
    rm -rf -- "$DIR"
}

# Starts the node; READY is its ready line.
start_node() {
    coproc NODE { exec "$CANDIDATE" --data-dir "$DIR/data" --cores "$SERVER_CORE" --cache "$CACHE" \
        --http 127.0.0.1:0 --oap off --admin 127.0.0.1:0 --log warn "${NODE_OPTIONS[@]}" 2>>"$DIR/log"; }
    IFS= read -r READY <&"${NODE[0]}" || die "the node did not start: $(tail -n 5 "$DIR/log")"
}

stop_node() {
    local pid=$NODE_PID
    kill -TERM "$pid"
    wait "$pid" || die "the node did not end well"
    NODE_PID=""
}

# An address of the ready line.
address_of() { # http|admin
    python3 "$LIB/field.py" "$1" <<<"$READY"
}
