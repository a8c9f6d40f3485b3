"""Makes one record of the pauses that were seen on several cores at once: of each figure, the worst.

    pauses.py ROUND < one JSON object a core
"""

import json
import sys

cores = [json.loads(line) for line in sys.stdin if line.strip()]
record = {"case": "pauses", "round": int(sys.argv[1]), "side": "machine", "cores": len(cores)}
record |= {key: max(core[key] for core in cores) for key in cores[0]}
print(json.dumps(record))
