"""A node manager of the gem as a process that a test starts and stops: `redis_node_manager -n ... -z ...`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from deploy.processes import Process
from rfprotocol.topology.topology import Node
from tests.support.gem.manager import Settings

ROOT = Path(__file__).parents[3]
QUICK = Settings(interval=0.5, nap=0.1, patience=1.0, retry=0.5, session_timeout=4.0)
"""For tests that need not wait as long as one waits for the gem."""


def gem_manager(hosts: str, nodes: Iterable[Node], log: Path, settings: Settings = QUICK) -> Process:
    """One that was not started yet."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in asdict(settings).items()]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    argv = [sys.executable, "-m", "tests.support.gem", "--zk", hosts, "--nodes", ",".join(map(str, nodes)), *words]
    return Process(argv, log, {**os.environ, "PYTHONPATH": path})
