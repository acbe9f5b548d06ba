"""The full search: python -m tests.decisions [number of the first bound]

It takes an hour or so. Each bound is told with what it has seen; a violation with all that led to it.
"""

from __future__ import annotations

import sys
import time

from tests.decisions.bounds import FULL, searched
from tests.decisions.truth import Violation


def main() -> int:
    """Search, print, and return the exit status."""
    first = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    violations = 0
    for number, bound in enumerate(FULL[first:], first):
        begun = time.process_time()
        try:
            print(number, bound, searched(bound), f"{time.process_time() - begun:.0f} s", flush=True)
        except Violation as error:
            violations += 1
            print(number, bound, error, sep="\n", flush=True)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
