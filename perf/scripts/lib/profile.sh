# shellcheck shell=bash
# One profiled run of a case: the top symbols as text, and the shares of CPU that the report shows.
# Sourced after servers.sh and cases.sh.

# Where the machine has no hardware counters, a timer samples.
perf_event() {
    local counted
    counted=$(perf stat --event cycles:u -- true 2>&1) || true
    if [[ $counted == *'not supported'* ]]; then
        printf 'cpu-clock'
    else
        printf 'cycles'
    fi
}

# Starts the load of a case for so many seconds; sets LOAD_PID. Its log is load.log.
start_load() { # SIDE CASE SECONDS
    local pids
    pids=$(python3 "$LIB/measure.py" pids "${SERVER_PID[$1]}") || die "$1 is gone"
    client_command "$1" "$2" "$3" 1
    in_netns "${COMMAND[@]/@PIDS/$pids}" >"$SCRATCH/load.log" 2>&1 &
    LOAD_PID=$!
}

profile_case() { # CASE
    local pids data="$SCRATCH/perf.data" report="$OUT-profile-$1.txt" event
    if ! pids=$(python3 "$LIB/measure.py" pids "${SERVER_PID[candidate]}"); then
        say "no profile of $1: the candidate is gone"
        return 0
    fi
    event=$(perf_event)
    start_load candidate "$1" $((RUN_SECONDS + WARMUP + 2))
    sleep $((WARMUP + 1))
    perf record --quiet --event "$event" -g --pid "$pids" --output "$data" -- \
        sleep "$RUN_SECONDS" 2>"$SCRATCH/perf.log" || say "perf record: $(cat "$SCRATCH/perf.log")"
    wait "$LOAD_PID" || say "the load of the profile failed: $(tail -n 5 "$SCRATCH/load.log")"
    {
        echo "# $1: ${SERVER_VERSION[candidate]}, $(connections_of "$1") connections, $event;"
        echo "# self time first, then the callers of whatever took 3 % or more."
        perf report --stdio --no-inline --no-children --call-graph none \
            --fields overhead,symbol,dso --percent-limit 0.3 --input "$data" 2>/dev/null
        perf report --stdio --no-inline --no-children --max-stack 16 \
            --fields overhead,symbol --call-graph graph,0.5,caller \
            --percent-limit 3 --input "$data" 2>/dev/null
    } | sed -e '/^#$/d' -e '/^[[:space:]]*$/d' -e 's/[[:space:]]*$//' |
        sed -n '1,400p' >"$report" ||
        say "perf report failed for $1"
    append_shares "$1" "$data"
}

# Appends a line with the shares of a recording to profiles.jsonl.
append_shares() { # CASE RECORDING
    perf report --stdio --no-inline --no-children --call-graph none --field-separator ';' \
        --fields overhead,dso,symbol --input "$2" 2>/dev/null |
        python3 "$LIB/shares.py" "$1" >>"$SCRATCH/profiles.jsonl" ||
        say "no shares of $1"
}
