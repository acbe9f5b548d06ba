"""`python -m tests.support.gem --zk HOSTS --nodes HOST:PORT,...`: a node manager, until SIGTERM."""

from __future__ import annotations

import argparse
import signal
from dataclasses import fields
from functools import partial

from tests.support.gem.manager import Manager, Settings


def main() -> None:
    """Each field of Settings is an option."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--zk", required=True)
    parser.add_argument("--nodes", required=True)
    for each in fields(Settings):
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=type(each.default), default=each.default)
    options = vars(parser.parse_args())
    zookeeper, nodes = options.pop("zk"), options.pop("nodes").split(",")
    manager = Manager(zookeeper, nodes, Settings(**options), partial(print, flush=True))
    signal.signal(signal.SIGTERM, lambda *_: manager.stop())
    manager.run()


if __name__ == "__main__":
    main()
