"""The clock of leases: it goes on while the machine is suspended, unlike that of the event loop.

ZooKeeper ends the session of a laptop or a virtual machine that is suspended. With CLOCK_MONOTONIC, which stands still
meanwhile, the lease would seem as fresh as before when the machine wakes up. CLOCK_BOOTTIME is the same clock with the
time of suspension in it (clock_gettime(2), Linux 2.6.39). Nobody can set it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

now: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds since the machine was started. A partial takes 40 ns less than a function, and packets ask for it."""
