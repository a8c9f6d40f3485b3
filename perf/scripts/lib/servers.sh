# shellcheck shell=bash
# Starting, asking and stopping the two servers of a comparison. Sourced by compare.sh, which owns
# the variables WORK (scratch directory), NETNS, SERVER_CORE, TCP_NOPUSH, LIB and `die`.
#
# A side is `baseline` or `candidate`. What runs on it is either the word `nginx` or the command
# of a rond binary; everything after the start treats both alike.
#
# compare.sh reads the tables, which a checker of this file alone cannot see.
# shellcheck disable=SC2034

declare -A SERVER_PID=() SERVER_HTTP=() SERVER_HTTPS=() SERVER_KIND=() SERVER_VERSION=()
declare -A SERVER_TLS=()
declare -A OBJECT_PATH=() # "side,length" -> path of the object in the URL

readonly READY_SECONDS_MAX=60
readonly STOP_SECONDS_MAX=10

in_netns() { ip netns exec "$NETNS" "$@"; }

# A request from inside the namespace. The certificates are made for the occasion.
fetch() { in_netns curl --silent --show-error --fail --noproxy '*' --insecure "$@"; }

make_certificate() { # DIRECTORY
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
        -subj /CN=localhost -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' \
        -keyout "$1/key.pem" -out "$1/cert.pem" 2>"$1/openssl.log"
}

write_nginx_config() { # DIRECTORY HTTP_ADDRESS HTTPS_ADDRESS
    local cpu_mask
    cpu_mask=$(printf '1%0*d' "$SERVER_CORE" 0)
    if ((SERVER_CORE == 0)); then cpu_mask=1; fi
    cat >"$1/nginx.conf" <<CONF
user www-data;
worker_processes 1;
worker_cpu_affinity $cpu_mask;
daemon off;
pid $1/nginx.pid;
error_log $1/error.log warn;
events { worker_connections 4096; }
http {
    default_type application/octet-stream;
    access_log off;
    sendfile on;
    tcp_nopush $TCP_NOPUSH;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    open_file_cache max=1024 inactive=1h;
    open_file_cache_valid 1h;
    open_file_cache_min_uses 1;
    client_body_temp_path $1/body;
    proxy_temp_path $1/proxy;
    fastcgi_temp_path $1/fastcgi;
    uwsgi_temp_path $1/uwsgi;
    scgi_temp_path $1/scgi;
    ssl_protocols TLSv1.3;
    ssl_session_cache shared:perf:1m;
    ssl_certificate $1/cert.pem;
    ssl_certificate_key $1/key.pem;
    server { listen $2; listen $3 ssl; root $1/root; }
}
CONF
}

start_nginx() { # SIDE
    local side=$1 dir="$WORK/$1" last deadline
    # The namespace is ours alone, so fixed ports are free; each side has its own.
    last=$([[ $side == baseline ]] && echo 0 || echo 1)
    SERVER_HTTP[$side]="127.0.0.1:808$last"
    SERVER_HTTPS[$side]="127.0.0.1:844$last"
    mkdir -p "$dir/root/o"
    cp "$WORK"/objects/* "$dir/root/o/"
    chmod -R a+rX "$dir/root" # The worker runs as www-data.
    make_certificate "$dir"
    write_nginx_config "$dir" "${SERVER_HTTP[$side]}" "${SERVER_HTTPS[$side]}"
    ip netns exec "$NETNS" taskset -c "$SERVER_CORE" \
        nginx -p "$dir" -c "$dir/nginx.conf" -e "$dir/error.log" \
        >"$dir/stdout" 2>"$dir/stderr" &
    SERVER_PID[$side]=$!
    SERVER_VERSION[$side]=$(nginx -v 2>&1 | sed 's|.*nginx/|nginx |')
    # nginx has no ready line: ask until it answers, or until it is gone.
    deadline=$((SECONDS + READY_SECONDS_MAX))
    until fetch --head --output /dev/null "http://${SERVER_HTTP[$side]}/o/4096" 2>/dev/null; do
        if ((SECONDS >= deadline)) || ! kill -0 "${SERVER_PID[$side]}" 2>/dev/null; then
            cat "$dir/stderr" "$dir/error.log" >&2 || true
            die "nginx ($side) did not become ready"
        fi
        sleep 0.05
    done
    local object
    for object in "$WORK"/objects/*; do
        OBJECT_PATH["$side,${object##*/}"]="/o/${object##*/}"
    done
}

start_rond() { # SIDE COMMAND...
    local side=$1 dir="$WORK/$1" line="" pipe
    shift
    mkfifo "$dir/ready"
    mkdir "$dir/data"
    ip netns exec "$NETNS" taskset -c "$SERVER_CORE" "$@" \
        --data-dir "$dir/data" --http 127.0.0.1:0 --https 127.0.0.1:0 --oap off \
        --admin 127.0.0.1:0 --cores "$SERVER_CORE" --cache 512MiB \
        >"$dir/ready" 2>"$dir/stderr" &
    SERVER_PID[$side]=$!
    # The pipe stays open until we exit, so that the server never writes into a closed one.
    exec {pipe}<"$dir/ready"
    if ! IFS= read -r -t "$READY_SECONDS_MAX" -u "$pipe" line; then
        cat "$dir/stderr" >&2
        die "$1 ($side) printed no ready line"
    fi
    SERVER_HTTP[$side]=$(python3 "$LIB/field.py" http <<<"$line")
    SERVER_HTTPS[$side]=$(python3 "$LIB/field.py" https <<<"$line")
    SERVER_VERSION[$side]=$(timeout 5 "$@" --version 2>/dev/null | head -n 1 || basename "$1")
    local object reply address
    for object in "$WORK"/objects/*; do
        reply=$(fetch --request PUT --data-binary "@$object" \
            --header 'Content-Type: application/octet-stream' "http://${SERVER_HTTP[$side]}/o/")
        address=$(python3 "$LIB/field.py" addr <<<"$reply")
        OBJECT_PATH["$side,${object##*/}"]="/o/${address#b3:}"
    done
}

start_server() { # SIDE WHAT
    local -a words
    read -ra words <<<"$2"
    mkdir "$WORK/$1"
    if [[ $2 == nginx ]]; then
        SERVER_KIND[$1]=nginx
        start_nginx "$1"
    else
        SERVER_KIND[$1]=rond
        start_rond "$1" "${words[@]}"
    fi
}

stop_server() { # SIDE
    local pid=${SERVER_PID[$1]:-} deadline
    if [[ -z $pid ]]; then return 0; fi
    unset "SERVER_PID[$1]"
    kill -TERM "$pid" 2>/dev/null || true
    deadline=$((SECONDS + STOP_SECONDS_MAX))
    while kill -0 "$pid" 2>/dev/null; do
        if ((SECONDS >= deadline)); then kill -KILL "$pid" 2>/dev/null || true; fi
        sleep 0.05
    done
    wait "$pid" 2>/dev/null || true
}

url_of() { # SIDE SCHEME LENGTH
    if [[ $2 == https ]]; then
        printf 'https://%s%s' "${SERVER_HTTPS[$1]}" "${OBJECT_PATH["$1,$3"]}"
    else
        printf 'http://%s%s' "${SERVER_HTTP[$1]}" "${OBJECT_PATH["$1,$3"]}"
    fi
}

# The body must be the source, byte for byte, before anything is measured.
check_body() { # SIDE SCHEME LENGTH
    local url
    url=$(url_of "$1" "$2" "$3")
    if ! fetch --output - "$url" | cmp --silent - "$WORK/objects/$3"; then
        die "$1: $url is not the source"
    fi
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
