# shellcheck shell=bash
# Starting, asking and stopping the servers of a comparison. Sourced after common.sh, netns.sh,
# cases.sh and cgroup.sh; the peers' configurations are in peers.sh.
#
# A side is `baseline`, `candidate`, `h2o` or `varnish`. What runs on the first two is either the
# word `nginx` or the command of a rond binary; everything after the start treats all alike. A
# group is a set of cases that share running servers: `hot` or `zipf`.
#
# The scripts read the tables, which a checker of this file alone cannot see.
# shellcheck disable=SC2034

# shellcheck source-path=SCRIPTDIR source=peers.sh
source "$LIB/peers.sh"

declare -A SERVER_PID=() SERVER_HTTP=() SERVER_HTTPS=() SERVER_ADMIN=()
declare -A SERVER_KIND=() SERVER_VERSION=() SERVER_TLS=() SERVER_DIR=()
declare -A OBJECT_PATH=() # "side,length" -> path of the object in the URL

TCP_NOPUSH=on NGINX_AIO=off ZIPF_MEMORY="not limited" ROND_CORES=$SERVER_CORE

# A request from inside the namespace. The certificates are made for the occasion.
fetch() { in_netns curl --silent --show-error --fail --noproxy '*' --insecure "$@"; }

node_of() { # SIDE SCHEME
    if [[ $2 == https ]]; then
        printf 'https://%s' "${SERVER_HTTPS[$1]}"
    else
        printf 'http://%s' "${SERVER_HTTP[$1]}"
    fi
}
path_of() { printf '%s' "${OBJECT_PATH["$1,$2"]}"; } # SIDE LENGTH

# What is fetched: files for those who serve files, which rond is given by PUT.
make_objects() { # GROUP
    local root="$SCRATCH/$1/root" len
    if [[ -d $root ]]; then return 0; fi
    mkdir -p "$root/o"
    case $1 in
    hot)
        for len in $HOT_LENGTHS; do head -c "$len" /dev/urandom >"$root/o/$len"; done
        if has_case range64k; then
            "$LOAD" files --dir "$root" --objects "$RANGE_OBJECTS" --seed "$RANGE_SEED" >&2
        fi
        ;;
    zipf)
        "$LOAD" files --dir "$root" --objects "$ZIPF_LEN:$ZIPF_COUNT" --seed "$ZIPF_SEED" >&2
        # What the page cache holds by now is nobody's: it must not serve outside the limit.
        sync -f "$root"
        python3 "$LIB/evict.py" "$root/o"
        ;;
    esac
    # Workers run as other users.
    chmod 755 "$SCRATCH" "$SCRATCH/$1"
    chmod -R a+rX "$root"
}

# Asks until a server that has no ready line answers, or until it is gone.
await_answer() { # SIDE
    local deadline=$((SECONDS + READY_SECONDS_MAX)) dir=${SERVER_DIR[$1]}
    until fetch --output /dev/null "http://${SERVER_HTTP[$1]}/ready" 2>/dev/null; do
        if ((SECONDS >= deadline)) || ! kill -0 "${SERVER_PID[$1]}" 2>/dev/null; then
            tail -n 20 "$dir/stdout" "$dir/stderr" "$dir/error.log" >&2 2>/dev/null || true
            die "$1 did not become ready"
        fi
        sleep 0.05
    done
}

store_in_rond() { # SIDE GROUP
    local file reply address http=${SERVER_HTTP[$1]}
    if [[ $2 == zipf ]]; then
        in_netns taskset -c "$CLIENT_CORE" "$LOAD" put --node "http://$http" --size "$ZIPF_LEN" \
            --count "$ZIPF_COUNT" --seed "$ZIPF_SEED" --connections 16 >&2
        return 0
    fi
    for file in "$SCRATCH/$2"/root/o/*; do
        reply=$(fetch --request PUT --data-binary "@$file" \
            --header 'Content-Type: application/octet-stream' "http://$http/o/")
        address=$(python3 "$LIB/field.py" addr <<<"$reply")
        OBJECT_PATH["$1,${file##*/}"]="/o/${address#b3:}"
    done
}

start_rond() { # SIDE GROUP COMMAND...
    local side=$1 group=$2 dir=${SERVER_DIR[$1]} cache=$HOT_CACHE
    shift 2
    if [[ $group == zipf ]]; then cache=$ZIPF_CACHE; fi
    mkfifo "$dir/ready"
    mkdir "$dir/data"
    ip netns exec "$NETNS" taskset -c "$ROND_CORES" "$@" \
        --data-dir "$dir/data" --http 127.0.0.1:0 --https 127.0.0.1:0 --oap off \
        --admin 127.0.0.1:0 --cores "$ROND_CORES" --cache "$cache" \
        >"$dir/ready" 2>"$dir/stderr" &
    SERVER_PID[$side]=$!
    await_ready_line "$dir/ready" "$dir/stderr" "$1 ($side)"
    SERVER_HTTP[$side]=$(python3 "$LIB/field.py" http <<<"$READY_LINE")
    SERVER_HTTPS[$side]=$(python3 "$LIB/field.py" https <<<"$READY_LINE")
    SERVER_ADMIN[$side]=$(python3 "$LIB/field.py" admin <<<"$READY_LINE")
    SERVER_VERSION[$side]=$(timeout 5 "$@" --version 2>/dev/null | head -n 1 || basename "$1")
    store_in_rond "$side" "$group"
}

start_server() { # SIDE WHAT GROUP
    local side=$1 object
    local -a words
    read -ra words <<<"$2"
    SERVER_DIR[$side]="$SCRATCH/$3/$side"
    SERVER_ADMIN[$side]=""
    SERVER_HTTPS[$side]=""
    mkdir -p "${SERVER_DIR[$side]}"
    for object in $HOT_LENGTHS; do OBJECT_PATH["$side,$object"]="/o/$object"; done
    case $2 in
    nginx | h2o | varnish)
        SERVER_KIND[$side]=$2
        "start_$2" "$side" "$3"
        await_answer "$side"
        ;;
    *)
        SERVER_KIND[$side]=rond
        start_rond "$side" "$3" "${words[@]}"
        ;;
    esac
    say "$side: ${SERVER_VERSION[$side]}, pid ${SERVER_PID[$side]}, http ${SERVER_HTTP[$side]}"
}

stop_server() { # SIDE
    local pid=${SERVER_PID[$1]:-}
    if [[ -z $pid ]]; then return 0; fi
    unset "SERVER_PID[$1]"
    stop_process "$pid"
}

stop_servers() {
    local side
    for side in varnish h2o baseline candidate; do stop_server "$side"; done
    remove_memory_group
}

# nginx gets the memory that rond has in all, its code and its connections included, and never less
# than the cache.
limit_to_memory_of() { # SIDE
    local kib cache=$((${ZIPF_CACHE%MiB} << 10))
    kib=$(sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\) kB$/\1/p' "/proc/${SERVER_PID[$1]}/status")
    if ((${kib:?} < cache)); then kib=$cache; fi
    make_memory_group $((kib * 1024))
    ZIPF_MEMORY="rond: cache of $ZIPF_CACHE, $((kib >> 10)) MiB resident in all; "
    ZIPF_MEMORY+="nginx: $MEMORY_GROUP_HOW"
}

start_sides() { # GROUP PEERS...
    local side
    make_objects "$1"
    if [[ $1 == zipf ]]; then
        start_server candidate "$CANDIDATE" zipf
        if [[ ${SERVER_KIND[candidate]} == rond ]]; then limit_to_memory_of candidate; fi
        start_server baseline "$BASELINE" zipf
    else
        start_server baseline "$BASELINE" "$1"
        start_server candidate "$CANDIDATE" "$1"
    fi
    for side in "${@:2}"; do start_server "$side" "$side" "$1"; done
    check_listeners
}

# The body must be the source, byte for byte, before anything is measured.
check_body() { # SIDE CASE
    local url len=${CASE_LEN[$2]}
    url="$(node_of "$1" "${CASE_SCHEME[$2]}")$(path_of "$1" "$len")"
    if ! fetch --output - "$url" | cmp --silent - "$SCRATCH/hot/root/o/$len"; then
        die "$1: $url is not the source"
    fi
}

# The same for the objects that ranges are asked of, which are hot from then on.
check_range_objects() { # SIDE
    local file url
    for file in "$SCRATCH"/hot/root/o/b3:*; do
        url="http://${SERVER_HTTP[$1]}/o/${file##*/}"
        if ! fetch --output - "$url" | cmp --silent - "$file"; then
            die "$1: $url is not the source"
        fi
    done
}

# What a client of OpenSSL's defaults, such as wrk, negotiates: "TLSv1.3 CIPHERSUITE".
tls_facts() { # SIDE
    local text facts
    text=$(in_netns openssl s_client -brief -connect "${SERVER_HTTPS[$1]}" </dev/null 2>&1) ||
        die "$1: no TLS on ${SERVER_HTTPS[$1]}: $text"
    facts=$(sed -n 's/^Protocol version: //p; s/^Ciphersuite: //p' <<<"$text" | paste -sd ' ')
    if [[ $facts != TLSv1.3\ * ]]; then die "$1: negotiated '$facts', not TLS 1.3"; fi
    printf '%s' "$facts"
}
