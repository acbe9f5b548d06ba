"""One measurement: a load on one of the compared systems, and what it cost that system."""

from __future__ import annotations

import contextlib
import csv
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.accounting import cpu_time
from bench.peers import Peer
from bench.records import Measurement
from bench.workloads import KEYS, Stream, Workload
from deploy.processes import ProcessError, RedisGroup

_READS = ("cmdstat_get", "cmdstat_mget", "cmdstat_lrange")
PATIENCE = 120.0
"""Seconds that one load may take; redis-benchmark tries for ever to reach a server that is gone."""
_POLL = 0.05
"""Seconds at least between two looks at what was done so far."""
_LOOKS = 10
"""At most, in the time that a load should take: they cost CPU time that what is measured has to wait for."""
_EDGE = 0.1
"""Part of the commands before the accounts are opened and after they are closed: connections come and go then."""


@dataclass(frozen=True, slots=True)
class Account:
    """At one moment: commands that the servers have done, and seconds on the CPU."""

    commands: int
    proxy: float
    redis: float


class Meter:
    """Loads one system and reads its accounts; to be closed."""

    def __init__(self, group: RedisGroup, peer: Peer) -> None:
        self.peer = peer
        self._servers = group.servers
        self._clients = [server.client(socket_timeout=PATIENCE) for server in group.servers]

    def close(self) -> None:
        """Close the connections to the servers."""
        for client in self._clients:
            client.close()

    def measure(self, workload: Workload, requests: int, seconds: float, number: int) -> Measurement:
        """Send so many requests in round `number`, which should take so many seconds.

        Raises ProcessError when the load cannot be run or is answered with an error.
        """
        before = opened = closed = self.account()
        steady = requests * _EDGE >= workload.connections * workload.pipeline  # else most of it is in flight at once
        with self._load(workload, requests, seconds) as runs:
            if steady:
                pause = max(_POLL, seconds / _LOOKS)
                opened = self._when(before.commands + int(requests * _EDGE), runs, pause)
                closed = self._when(before.commands + int(requests * (1 - _EDGE)), runs, pause)
            seen = [_result(run) for run in runs]
        if not steady or closed.commands == opened.commands:  # all was over at the first look
            opened, closed = before, self.account()
        commands = closed.commands - opened.commands
        return Measurement(
            round=number,
            workload=workload.name,
            system=self.peer.name,
            rate=sum(row["rps"] for row in seen),
            p50=max(row["p50_latency_ms"] for row in seen),
            p99=max(row["p99_latency_ms"] for row in seen),
            proxy=(closed.proxy - opened.proxy) / commands * 1e6,
            redis=(closed.redis - opened.redis) / commands * 1e6,
        )

    def rate(self, workload: Workload, requests: int) -> float:
        """Commands per second, to learn how many are enough. Raises as `measure`."""
        with self._load(workload, requests, 1.0) as runs:
            return sum(_result(run)["rps"] for run in runs)

    def account(self) -> Account:
        """What was done so far. A write counts where clients write, not again on the replicas."""
        seen = [client.info("commandstats") for client in self._clients]
        reads = sum(stats[name]["calls"] for stats in seen for name in _READS if name in stats)
        writes = seen[0].get("cmdstat_set", {"calls": 0})["calls"]
        process = self.peer.process
        return Account(
            commands=reads + writes,
            proxy=cpu_time(process.pid) if process else 0.0,
            redis=sum(cpu_time(server.pid) for server in self._servers),
        )

    def _when(self, commands: int, runs: Sequence[subprocess.Popen[str]], pause: float) -> Account:
        """The account when so many commands were done, or one of the runs has ended."""
        while True:
            ended = any(run.poll() is not None for run in runs)
            account = self.account()
            if ended or account.commands >= commands:
                return account
            time.sleep(pause)

    @contextlib.contextmanager
    def _load(self, workload: Workload, requests: int, seconds: float) -> Iterator[list[subprocess.Popen[str]]]:
        """What sends the streams; ended if it still runs."""
        with contextlib.ExitStack() as stack:
            runs = []
            for stream in workload.streams:
                command = self._command(stream, workload, requests, seconds)
                run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                runs.append(stack.enter_context(run))
                stack.callback(run.terminate)  # which `timeout` passes on
            yield runs

    def _command(self, stream: Stream, workload: Workload, requests: int, seconds: float) -> list[str]:
        host, port = self.peer.address.host, self.peer.address.port
        own = requests * stream.connections // workload.connections
        words: list[object]
        if workload.third_of:
            words = [sys.executable, "-m", "bench.openloop", host, port, "--connections", stream.connections]
            words += ["--rate", own / seconds, "--requests", own]
        else:
            words = ["redis-benchmark", "-h", host, "-p", port, "--csv", "-r", KEYS]
            words += ["-c", stream.connections, "-P", workload.pipeline, "-n", own]
        return ["timeout", str(PATIENCE), *(str(word) for word in (*words, *stream.command))]


def _result(run: subprocess.Popen[str]) -> dict[str, float]:
    """The line that it prints."""
    output, problem = run.communicate()
    rows = list(csv.DictReader(output.splitlines()))
    if run.returncode or len(rows) != 1:
        raise ProcessError(f"{run.args!r} ended with status {run.returncode}: {problem or output}")
    return {name: float(value) for name, value in rows[0].items() if name != "test"}
