"""The process that reads damaged data: a case name a line in, an outcome a line out.

python -m tests.data_tools.fuzz.child ORIGINALS SCRATCH
"""

import dataclasses
import faulthandler
import json
import resource
import sys
import warnings
from pathlib import Path

from tests.data_tools.fuzz.case import Cases
from tests.data_tools.fuzz.originals import LEROBOT_KINDS

MEMORY_BYTES = 1 << 30  # beyond what the process maps at its start


def main() -> None:
    faulthandler.enable()
    cases = Cases(Path(sys.argv[1]), Path(sys.argv[2]))
    cases.truth_of(LEROBOT_KINDS[0])  # Arrow's allocator takes its address space at first use
    warnings.simplefilter("error")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for line in sys.stdin:
        outcome = cases.run(line.strip())
        sys.stdout.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
