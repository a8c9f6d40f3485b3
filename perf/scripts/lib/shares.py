"""Sums `perf report --fields overhead,dso,symbol --field-separator ';'` on stdin by kind of work.

    shares.py CASE

Prints one JSON line. Shares are of the samples of the server's threads: `verification` is BLAKE3
(a run of GETs hashes for no other reason), `encryption` the record protection of TLS and its
handshakes, `kernel` all system time, `rest` what is left: the node's own code and its libraries.
"""

import json
import re
import sys

KINDS = (
    ("verification", re.compile(r"blake3", re.IGNORECASE)),
    ("encryption", re.compile(r"aes|gcm|gmult|ghash|chacha|poly1305|ecdsa|ecp_|p256|x25519|mlkem|"
                              r"sha256|sha512|aws_lc|rustls|EVP_|_bn_|bignum", re.IGNORECASE)),
)


def kind_of(dso, symbol):
    if "kernel" in dso or symbol.startswith("[k]"):
        return "kernel"
    return next((kind for kind, pattern in KINDS if pattern.search(symbol)), "rest")


def main():
    sums = {"verification": 0.0, "encryption": 0.0, "kernel": 0.0, "rest": 0.0}
    for line in sys.stdin:
        cells = [cell.strip() for cell in line.split(";", 2)]
        if len(cells) == 3 and cells[0].endswith("%"):
            sums[kind_of(cells[1], cells[2])] += float(cells[0][:-1])
    total = sum(sums.values())
    if total <= 0:
        sys.exit("shares.py: no samples")
    shares = {kind: round(value / total, 4) for kind, value in sums.items()}
    print(json.dumps({"case": sys.argv[1], **shares}))


if __name__ == "__main__":
    main()
