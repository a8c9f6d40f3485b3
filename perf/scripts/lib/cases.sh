# shellcheck shell=bash
# The cases that are measured, and the client that measures each: one table for the comparison, the
# flamegraphs and the counts of system calls. Sourced after common.sh and servers.sh.
#
# Which goal a case has is in goals.py. The tables are read by the scripts that source this.
# shellcheck disable=SC2034

# The group decides how the servers are set up; see servers.sh.
readonly CASES_HOT=4k,4k-c64,64k,1m,64m,range64k,tls4k,tls64k,tls1m,handshake,open4k
readonly CASES_ALL=$CASES_HOT,zipf,shards2
readonly CASES_PEERS=4k,64k,1m
declare -rA CASE_SCHEME=([4k]=http [4k-c64]=http [64k]=http [1m]=http [64m]=http [range64k]=http
    [tls4k]=https [tls64k]=https [tls1m]=https [handshake]=https [open4k]=http [zipf]=http
    [shards2]=http)
# Bytes of one answer's body.
declare -rA CASE_LEN=([4k]=4096 [4k-c64]=4096 [64k]=65536 [1m]=1048576 [64m]=67108864
    [range64k]=65536 [tls4k]=4096 [tls64k]=65536 [tls1m]=1048576 [handshake]=4096
    [open4k]=4096 [zipf]=65536 [shards2]=4096)
# Where a case needs another number of connections than --connections: few where one answer takes
# long, so that those cut off by the end of the run count for little; many where an open loop or a
# disk wants enough of them that the client is never what waits.
declare -rA CASE_CONNECTIONS=([4k-c64]=64 [64m]=4 [open4k]=64 [zipf]=64)
# wrk, whose OpenSSL takes twice the CPU time of ron-perf's TLS, would be what is measured over TLS.
declare -rA CASE_TOOL=([range64k]=ron-perf [tls4k]=ron-perf [tls64k]=ron-perf [tls1m]=ron-perf
    [handshake]=ron-perf [open4k]=ron-perf [zipf]=ron-perf)
# Objects of the hot group that are fetched whole: their lengths.
readonly HOT_LENGTHS="4096 65536 1048576 67108864"
# All 64 KiB ranges of these are in rond's cache, and in nginx's page cache.
readonly RANGE_OBJECTS=64MiB:4 RANGE_SEED=11
readonly HOT_CACHE=512MiB
# About five times the cache: 64 KiB objects asked for as Zipf's law with exponent 1 says.
readonly ZIPF_CACHE=256MiB ZIPF_LEN=64KiB ZIPF_COUNT=20000 ZIPF_SEED=12

CONNECTIONS=16 LOAD="" OPEN_RATE=""
declare -a CASES=()

parse_cases() { # LIST
    local name
    IFS=, read -ra CASES <<<"$1"
    for name in "${CASES[@]}"; do
        if [[ -z ${CASE_LEN[$name]:-} ]]; then misuse "unknown case: $name"; fi
    done
}

has_case() { # NAME...
    local wanted name
    for wanted in "$@"; do
        for name in "${CASES[@]}"; do
            if [[ $name == "$wanted" ]]; then return 0; fi
        done
    done
    return 1
}

group_of() { # CASE
    case $1 in
    zipf | shards2) printf '%s' "$1" ;;
    *) printf 'hot' ;;
    esac
}
tool_of() { printf '%s' "${CASE_TOOL[$1]:-wrk}"; }
connections_of() { printf '%s' "${CASE_CONNECTIONS[$1]:-$CONNECTIONS}"; }

needs_ron_perf() {
    local name
    for name in "${CASES[@]}"; do
        if [[ $(tool_of "$name") == ron-perf ]]; then return 0; fi
    done
    return 1
}

# Sets COMMAND to the words of the client's command, inside the namespace. `@PIDS` stands for the
# server's processes, which ron-perf charges by itself.
client_command() { # SIDE CASE SECONDS WARMUP
    local side=$1 name=$2 node
    node=$(node_of "$side" "${CASE_SCHEME[$name]}")
    if [[ $(tool_of "$name") == wrk ]]; then
        COMMAND=(taskset -c "$CLIENT_CORE" wrk --threads 1
            --connections "$(connections_of "$name")" --duration "$3s" --script "$LIB/wrk.lua"
            "$node$(path_of "$side" "${CASE_LEN[$name]}")")
        return 0
    fi
    COMMAND=(taskset -c "$CLIENT_CORE" "$LOAD" load --node "$node" --seconds "$3" --warmup "$4"
        --connections "$(connections_of "$name")" --server-pid @PIDS --json -)
    case $name in
    range64k) COMMAND+=(--objects "$RANGE_OBJECTS" --seed "$RANGE_SEED" --range 64KiB) ;;
    tls4k | tls64k | tls1m) COMMAND+=(--path "$(path_of "$side" "${CASE_LEN[$name]}")") ;;
    handshake) COMMAND+=(--path "$(path_of "$side" 4096)" --reconnect full) ;;
    open4k) COMMAND+=(--path "$(path_of "$side" 4096)" --rate "$OPEN_RATE") ;;
    zipf)
        COMMAND+=(--objects "$ZIPF_LEN:$ZIPF_COUNT" --seed "$ZIPF_SEED" --popularity zipf:1.0)
        ;;
    esac
}
