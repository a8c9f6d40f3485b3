"""Prints one field of the last JSON object on stdin that has it: `field.py KEY`.

Lines that are not JSON objects are skipped, so a build log or a reply may be piped in whole.
Exits with 1 when no line has the field, or when it is null.
"""

import json
import sys


def main():
    key, found = sys.argv[1], None
    for line in sys.stdin:
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict) and document.get(key) is not None:
            found = document[key]
    if found is None:
        sys.exit(f"field.py: no {key!r} in the input")
    print(found)


if __name__ == "__main__":
    main()
