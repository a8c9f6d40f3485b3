"""What it costs that another shard has the object: CPU per request of two shards of rond.

    shards2.py --rounds N --seconds N ... -- ROND        appends one JSON line for each run

Runs in a network namespace of its own, whose port range it sets. The kernel chooses the shard of
a connection by its addresses and ports, always the same for the same ones; so which source port
leads to which shard is found out once, by asking for one object and reading the node's own count
of questions between shards. Afterwards a client is let connect from the ports of one shard only.
Each shard is asked over the same connections in every mode; what differs is the keys:

    local     every connection asks for objects of its own shard: no hops
    uniform   for objects of both shards in turn: every second request hops
    remote    for objects of the other shard: every request hops

The count of hops of each run is on record, and a run that hops otherwise is faulty. Two wrk for
each shard, on the cores beyond the shards' where there are any, else on the shards' own: CPU per
request is what is compared, which does not mind whose turn it is.
"""

import argparse
import contextlib
import http.client
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time

from measure import cpu_seconds, machine_seconds, node_counters, process_tree, totals_of_wrk

OBJECT_LEN = 4096
CACHE = "512MiB"
SHARD_CORES = (0, 1)
# Source ports that are tried, from here on; each kind of connection finds its own among them.
PORT_FIRST = 20000
PORTS_ELSEWHERE = 50000
PORTS_PER_CONNECTION = 16
OBJECTS_MAX = 64
KEYS_PER_SHARD = 2
READY_SECONDS_MAX, STOP_SECONDS_MAX, CONNECT_SECONDS_MAX, HANG_SECONDS = 60, 30, 10, 60
MODES = ("local", "uniform", "remote")
HOPS = {"local": 0.0, "uniform": 0.5, "remote": 1.0}
# wrk asks for the two keys in turn over all connections, so a connection's share varies.
HOPS_TOLERANCE = 0.05
ESTABLISHED = "01"
PORT_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"
PORTS_RESERVED = "/proc/sys/net/ipv4/ip_local_reserved_ports"


class Node:
    """A running rond of two shards, and what was found out about it."""

    def __init__(self, command, scratch):
        os.makedirs(scratch)
        with open(f"{scratch}/stderr", "wb") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", ",".join(map(str, SHARD_CORES)), *command.split(),
                 "--data-dir", f"{scratch}/data", "--http", "127.0.0.1:0", "--https", "off",
                 "--oap", "off", "--admin", "127.0.0.1:0", "--cache", CACHE,
                 "--cores", ",".join(map(str, SHARD_CORES))],
                stdout=subprocess.PIPE, stderr=log)
        ready, _, _ = select.select([self.process.stdout], [], [], READY_SECONDS_MAX)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            self.stop()
            with open(f"{scratch}/stderr", encoding="utf-8", errors="replace") as log:
                sys.exit(f"shards2.py: rond printed no ready line: {log.read()[-2000:]}")
        addresses = json.loads(line)
        self.http, self.admin = addresses["http"], addresses["admin"]
        self.port = int(self.http.rpartition(":")[2])

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def hops(self):
        return node_counters(self.admin)["mesh_hops"]

    def connect(self, port=0):
        """A connection from a source port, or from any."""
        source = ("127.0.0.1", port) if port else None
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10,
                                                source_address=source)
        connection.connect()
        # Closing resets, so that no port is left waiting.
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return connection

    def hops_of(self, connection, path):
        """How many hops one request takes over a connection."""
        before = self.hops()
        answer_of(connection, "GET", path)
        return self.hops() - before


def answer_of(connection, verb, path, body=None):
    connection.request(verb, path, body=body)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status not in (200, 201):
        sys.exit(f"shards2.py: {verb} {path}: status {answer.status}")
    return content


def find_keys(node):
    """Paths by shard, two shards by two; and the one that is asked for to tell ports apart."""
    connection = node.connect()
    keys = ([], [])
    for _ in range(OBJECTS_MAX):
        receipt = json.loads(answer_of(connection, "PUT", "/o/", os.urandom(OBJECT_LEN)))
        path = f"/o/{receipt['addr'].removeprefix('b3:')}"
        keys[min(node.hops_of(connection, path), 1)].append(path)
        if min(map(len, keys)) >= KEYS_PER_SHARD:
            connection.close()
            return keys
    return sys.exit(f"shards2.py: of {OBJECTS_MAX} objects one shard has "
                    f"{min(map(len, keys))}: do two shards serve?")


def find_ports(node, path, count):
    """Source ports by shard: those whose connections need no hop for `path`, and the others."""
    ports = ([], [])
    for port in range(PORT_FIRST, PORT_FIRST + count):
        try:
            connection = node.connect(port)
        except OSError:
            continue
        ports[min(node.hops_of(connection, path), 1)].append(port)
        connection.close()
    return ports


def allow_only(ports):
    """Lets the clients that connect from now on use these source ports only."""
    first, last = min(ports), max(ports)
    with open(PORT_RANGE, "w", encoding="ascii") as file:
        file.write(f"{first}\t{last}\n")
    with open(PORTS_RESERVED, "w", encoding="ascii") as file:
        file.write(",".join(map(str, sorted(set(range(first, last + 1)) - set(ports)))) + "\n")


def established(node, ports):
    """Connections to the node from any of the ports."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    wanted = set(ports)
    return sum(1 for row in rows if row[3] == ESTABLISHED
               and int(row[2].rpartition(":")[2], 16) == node.port
               and int(row[1].rpartition(":")[2], 16) in wanted)


def client_cores():
    free = sorted(os.sched_getaffinity(0) - set(SHARD_CORES))
    return free[:2] if len(free) >= 2 else free * 2 or list(SHARD_CORES)


def start_clients(node, options, mode, keys, ports, seconds):
    """Two clients for each shard; all are connected when it returns."""
    each = max(options.connections // 4, 1)
    clients = []
    for shard in (0, 1):
        allow_only(ports[shard])
        paths = {"local": keys[shard][:2], "remote": keys[1 - shard][:2],
                 "uniform": [keys[0][0], keys[1][0]]}[mode]
        for core in client_cores():
            clients.append(subprocess.Popen(
                ["taskset", "-c", str(core), "wrk", "--threads", "1", "--connections", str(each),
                 "--duration", f"{seconds}s", "--script", options.lua, f"http://{node.http}",
                 "--", *paths], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        deadline = time.monotonic() + CONNECT_SECONDS_MAX
        while established(node, ports[shard]) < 2 * each and time.monotonic() < deadline:
            time.sleep(0.002)
    # What connects later, such as a scrape, must not take the ports of the next clients.
    allow_only(range(PORTS_ELSEWHERE, PORTS_ELSEWHERE + 1000))
    return clients


def run(node, options, mode, keys, ports, seconds):
    """One run of a mode as a dictionary."""
    tree = process_tree(node.process.pid)
    hops, cpu, (busy, steal) = node.hops(), cpu_seconds(tree), machine_seconds()
    started = time.time()
    clients = start_clients(node, options, mode, keys, ports, seconds)
    totals, faults = [], []
    for client in clients:
        try:
            output, complaint = client.communicate(timeout=seconds + HANG_SECONDS)
        except subprocess.TimeoutExpired:
            client.kill()
            output, complaint = client.communicate()
        found = totals_of_wrk(output) if client.returncode == 0 else None
        if found is None:
            faults.append(f"the load generator failed: {complaint.strip()[-300:]}")
        else:
            totals.append(found)
    wall = time.time() - started
    cpu = cpu_seconds(tree) - cpu
    busy_after, steal_after = machine_seconds()
    requests = sum(each["requests"] for each in totals)
    taken = max((each["seconds"] for each in totals), default=wall)
    per_request = (node.hops() - hops) / max(requests, 1)
    for each in totals:
        faults += [f"{count} {kind} errors" for kind, count in each["errors"].items() if count]
        if each["wire_bytes"] < each["requests"] * OBJECT_LEN:
            faults.append("answers were shorter than the object")
    if requests == 0:
        faults.append("no request was answered")
    elif abs(per_request - HOPS[mode]) > HOPS_TOLERANCE:
        faults.append(f"{per_request:.3f} hops per request, not {HOPS[mode]}")
    return {
        "case": "shards2", "side": mode, "tool": "wrk", "requests": requests,
        "seconds": round(taken, 4), "server_cpu_s": round(cpu, 4),
        "machine_busy": round((busy_after - busy) / wall, 4),
        "steal": round((steal_after - steal) / wall, 4),
        "rps": round(requests / taken, 1), "per_cpu": round(requests / max(cpu, 1e-9), 1),
        "cpu_us": round(cpu * 1e6 / max(requests, 1), 3),
        "hops_per_request": round(per_request, 4), "faults": faults,
    }


def measure(node, options):
    count = PORTS_PER_CONNECTION * max(options.connections, 4)
    allow_only(range(PORTS_ELSEWHERE, PORTS_ELSEWHERE + 1000))
    keys = find_keys(node)
    ports = find_ports(node, keys[0][0], count)
    least = min(map(len, ports))
    print(f"shards2: {len(ports[0])} and {len(ports[1])} source ports by shard", file=sys.stderr)
    if least < options.connections:
        sys.exit(f"shards2.py: only {least} source ports lead to one of the shards")
    for number in range(1, options.rounds + 1):
        # Who goes first rotates, so that a drift of the machine favours nobody.
        turn = number % len(MODES)
        for place, mode in enumerate(MODES[turn:] + MODES[:turn]):
            run(node, options, mode, keys, ports, options.warmup)
            record = {"round": number, "place": place + 1}
            record |= run(node, options, mode, keys, ports, options.seconds)
            with open(options.out, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            print(f"round {number}  shards2  {mode}  {record['cpu_us']:.2f} CPU µs/request  "
                  f"{record['hops_per_request']:.3f} hops/request  {record['rps']:,.0f} req/s",
                  *record["faults"], file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--rounds", "--seconds", "--warmup", "--connections"):
        parser.add_argument(name, type=int, required=True)
    for name in ("--scratch", "--lua", "--out"):
        parser.add_argument(name, required=True)
    parser.add_argument("rond", help="the command of a rond binary")
    options = parser.parse_args()
    node = Node(options.rond, options.scratch)
    with contextlib.ExitStack() as stack:
        stack.callback(node.stop)
        measure(node, options)


if __name__ == "__main__":
    main()
