"""CPU time is that of everything a process has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.accounting import cpu_time

SPENT = 0.1
"""Seconds that one thread of the process computes."""
BURN = f"""
import sys, threading, time
def burn():
    until = time.thread_time() + {SPENT}
    while time.thread_time() < until: pass
    print("done", flush=True)
    threading.Event().wait()
"""
ALONE = BURN + "burn()"
THREAD = BURN + "threading.Thread(target=burn).start()"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ALONE!r}])"


@contextmanager
def running(program: str) -> Iterator[int]:
    """Its process id, once it has computed."""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "done\n"
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("program", [ALONE, THREAD, CHILD], ids=["the process", "its thread", "its child"])
def test_time_counts_whoever_spends_it(program: str) -> None:
    with running(program) as pid:
        assert cpu_time(pid) >= SPENT


def test_time_of_who_waits_stands_still() -> None:
    with running(ALONE) as pid:
        before = cpu_time(pid)
        spent = time.process_time() + SPENT
        while time.process_time() < spent:
            pass
        assert cpu_time(pid) - before < SPENT / 10
