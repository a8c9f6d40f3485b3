# shellcheck shell=bash
# The peers, each as its own documentation would have it for static files on one core. Sourced by
# servers.sh; each start function sets SERVER_PID, SERVER_HTTP and SERVER_VERSION of its side, and
# does not wait for it.
#
# shellcheck disable=SC2034,SC2153 # The tables are made in servers.sh.

# The namespace is ours alone, so fixed ports are free; each side has its own.
declare -rA PEER_PORT=([baseline]=8080 [candidate]=8081 [h2o]=8082 [varnish]=8083)
declare -rA PEER_TLS_PORT=([baseline]=8440 [candidate]=8441)
# Connections and open files for all cases, with a margin.
readonly PEER_CONNECTIONS_MAX=4096 PEER_FILES_MAX=65536

make_certificate() { # DIRECTORY
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
        -subj /CN=localhost -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' \
        -keyout "$1/key.pem" -out "$1/cert.pem" 2>"$1/openssl.log"
}

# Starts a peer's process on the server's core, its output kept beside its files.
launch_peer() { # SIDE COMMAND...
    local dir=${SERVER_DIR[$1]}
    exec_in_memory_group ip netns exec "$NETNS" taskset -c "$SERVER_CORE" "${@:2}" \
        >"$dir/stdout" 2>"$dir/stderr" &
    SERVER_PID[$1]=$!
}

write_nginx_config() { # DIRECTORY ROOT HTTP_ADDRESS HTTPS_ADDRESS
    local cpu_mask aio=""
    cpu_mask=$(printf '1%0*d' "$SERVER_CORE" 0)
    if ((SERVER_CORE == 0)); then cpu_mask=1; fi
    if [[ $NGINX_AIO == threads ]]; then aio="aio threads;"; fi
    cat >"$1/nginx.conf" <<CONF
user www-data;
worker_processes 1;
worker_cpu_affinity $cpu_mask;
worker_rlimit_nofile $PEER_FILES_MAX;
daemon off;
pid $1/nginx.pid;
error_log $1/error.log warn;
events { worker_connections $PEER_CONNECTIONS_MAX; }
http {
    default_type application/octet-stream;
    access_log off;
    sendfile on;
    $aio
    tcp_nopush $TCP_NOPUSH;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    open_file_cache max=$((PEER_FILES_MAX / 2)) inactive=1h;
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
    server {
        listen $3;
        listen $4 ssl;
        root $2;
        location = /ready { return 204; }
    }
}
CONF
}

start_nginx() { # SIDE GROUP
    local dir=${SERVER_DIR[$1]}
    SERVER_HTTP[$1]="127.0.0.1:${PEER_PORT[$1]}"
    SERVER_HTTPS[$1]="127.0.0.1:${PEER_TLS_PORT[$1]}"
    SERVER_VERSION[$1]=$(nginx -v 2>&1 | sed 's|.*nginx/|nginx |')
    make_certificate "$dir"
    write_nginx_config "$dir" "$SCRATCH/$2/root" "${SERVER_HTTP[$1]}" "${SERVER_HTTPS[$1]}"
    launch_peer "$1" nginx -p "$dir" -c "$dir/nginx.conf" -e "$dir/error.log"
}

start_h2o() { # SIDE GROUP
    local dir=${SERVER_DIR[$1]}
    SERVER_HTTP[$1]="127.0.0.1:${PEER_PORT[$1]}"
    SERVER_VERSION[$1]=$(h2o --version | sed -n '1s/ version / /p')
    cat >"$dir/h2o.conf" <<CONF
user: www-data
num-threads: 1
max-connections: $PEER_CONNECTIONS_MAX
error-log: $dir/error.log
http1-request-timeout: 3600
listen:
  host: 127.0.0.1
  port: ${PEER_PORT[$1]}
hosts:
  default:
    paths:
      /ready:
        file.file: $SCRATCH/$2/root/o/4096
      /:
        file.dir: $SCRATCH/$2/root
        file.send-compressed: OFF
CONF
    launch_peer "$1" h2o --mode worker --conf "$dir/h2o.conf"
}

# A cache in memory in front of the nginx that is there, which it asks once for each object.
start_varnish() { # SIDE GROUP
    local dir=${SERVER_DIR[$1]} backend="" side
    for side in baseline candidate; do
        if [[ ${SERVER_KIND[$side]} == nginx ]]; then backend=${SERVER_HTTP[$side]}; fi
    done
    if [[ -z $backend ]]; then die "varnish needs an nginx on one side"; fi
    SERVER_HTTP[$1]="127.0.0.1:${PEER_PORT[$1]}"
    SERVER_VERSION[$1]=$(varnishd -V 2>&1 | sed -n '1s/.*varnish-\([0-9.]*\).*/varnish \1/p')
    launch_peer "$1" varnishd -F -j none -n "$dir/work" -a "${SERVER_HTTP[$1]}" -b "$backend" \
        -s malloc,512m -t 86400
}
