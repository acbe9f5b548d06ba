"""Fuzz for a while: `python -m tests.fuzz --seconds 600 [--seed N] [--interpreted]`.

Every case follows from its own seed, which is printed when it fails: that `--seed` and `--cases 1` repeat it.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from random import Random

from tests.fuzz import builds, checks
from tests.support.redis import RedisServer


def main() -> int:
    """Run all checks in turn until the time or the cases are over. Returns 1 when one failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Fuzz the readers of requests and replies."
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--cases", type=int, default=sys.maxsize, help="at most so many cases of each check")
    parser.add_argument("--seed", type=int, default=time.time_ns() // 1000, help="of the first case")
    parser.add_argument("--interpreted", action="store_true", help="do not compile")
    options = parser.parse_args()
    kinds = [builds.INTERPRETED] if options.interpreted else [builds.INTERPRETED, builds.compiled()]
    over = time.monotonic() + options.seconds
    case = 0
    with RedisServer() as server:
        named: dict[str, Callable[[builds.Build, Random], None]] = {
            **checks.ALL,
            "redis": partial(checks.redis, node=server.node),
        }
        print(f"{', '.join(build.name for build in kinds)}: {', '.join(named)}; first seed {options.seed}", flush=True)
        while time.monotonic() < over and case < options.cases:
            for name, check in named.items():
                for build in kinds:
                    try:
                        check(build, Random(options.seed + case))
                    except Exception:
                        traceback.print_exc()
                        print(f"{name}, {build.name}: fails with --seed {options.seed + case}")
                        return 1
            case += 1
    print(f"{case} cases of each check; none failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
