"""`python -m tests.differential --commands 1000000 --seed 7`: prints what differs; exit status 1 if anything does."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.differential.generator import cases, on_master, on_replicas, settled_cases
from tests.differential.site import both_sides


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--commands", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the run; default: another one each time")
    parser.add_argument("--case", type=int, help="play only the case that was reported with this seed")
    parser.add_argument("--reads", choices=("master", "replica"), default="master")
    parser.add_argument("--most", type=int, default=5, help="differences after which to stop")
    options = parser.parse_args()
    master = options.reads == "master"
    with tempfile.TemporaryDirectory(prefix="rf-") as folder, both_sides(Path(folder), options.reads) as comparison:
        began = time.monotonic()
        if options.case is not None:
            case = (on_master if master else on_replicas)(options.case)
            found = comparison.differences([(options.case, case)], case.size)
        else:
            stream = (cases if master else settled_cases)(options.seed)
            found = comparison.differences(stream, options.commands, options.most)
        seconds = time.monotonic() - began
        for difference in found:
            print(difference, end="\n\n")
        print(f"seed {options.seed}: {comparison.commands} commands in {seconds:.0f} s, {len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
