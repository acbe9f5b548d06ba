"""`make demo`: a whole installation under load; its master is killed, the role is moved on request, and all is told.

A ZooKeeper ensemble of three, three Redis servers, three managers and two proxies on this host, in front of
unmodified clients that try nothing twice. Takes half a minute and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import redis
from tabulate import tabulate

from bench.load import Load
from bench.seen import KINDS, WRITES, Result
from deploy.processes import ProcessError, RedisGroup, wait_until
from deploy.site import HOST, Site, is_replica
from deploy.zookeeper import ZooKeeperEnsemble

CONNECTIONS = 16
RATE = 800.0
"""Operations per second of all connections together: what two cores sustain besides the twelve processes."""

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def running_site(keep: bool) -> Iterator[tuple[Site, ZooKeeperEnsemble]]:
    """Start everything, and stop it in the end; `keep` leaves the logs behind. Raises ProcessError."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="rf-demo-"))
        if keep:
            stack.callback(say, f"the logs are in {folder}")
        else:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        say("starting ZooKeeper and Redis")
        ensemble = stack.enter_context(ZooKeeperEnsemble(3, folder))
        site = Site(folder, ensemble.hosts, stack.enter_context(RedisGroup(3)), "text")
        stack.callback(site.stop)
        say("starting managers and proxies")
        for process in [site.manager() for _ in range(3)] + [site.proxy() for _ in range(2)]:
            process.start()
        site.wait_until_ready()
        yield site, ensemble


class Story:
    """The load, and what happened when."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._chapters: list[tuple[str, float]] = []

    def begin(self, title: str) -> None:
        """From now on, what clients see is counted for this chapter."""
        say(title)
        self._chapters.append((title, time.monotonic()))

    def go_on(self, seconds: float) -> None:
        """Let the clients work."""
        threading.Event().wait(seconds)

    def tell(self, result: Result) -> str:
        """A line for each chapter."""
        ends = [begun for _, begun in self._chapters[1:]] + [result.until]
        rows = []
        for (title, begun), end in zip(self._chapters, ends, strict=True):
            part = result.between(begun, end)
            errors = ", ".join(f"{count} {command} {error}" for (command, error), count in sorted(part.errors.items()))
            waits = [_ms(part.slowest(commands)) for commands in KINDS.values()]
            rows.append([title, len(part.operations), errors or "none", *waits, _ms(part.gap(WRITES).seconds)])
        headers = ["", "OPERATIONS", "ERRORS", *(f"{name.upper()} WAITED" for name in KINDS), "NO WRITE FOR"]
        return tabulate(rows, headers, tablefmt="plain", disable_numparse=True)


def run_demo(rate: float, keep: bool = False) -> int:
    """The whole story; exit status 0 when the promises held."""
    with running_site(keep) as (site, ensemble):
        print(_welcome(site, ensemble), flush=True)
        load = Load(HOST, list(site.proxies), connections=CONNECTIONS, rate=rate)
        load.start()
        story = Story(load)
        story.begin("all is well")
        story.go_on(4)
        killed = site.master()
        story.begin(f"master {killed.node} killed (SIGKILL)")
        killed.kill()
        story.go_on(5)
        story.begin("planned switchover (rfmanager failover)")
        _manage(site, "failover")
        story.go_on(3)
        story.begin(f"{killed.node} started again")
        killed.restart()
        wait_until(lambda: is_replica(killed), f"{killed.node} is a replica again")
        story.go_on(3)
        result = load.stop()
        say("done")
        print(_summary(site, story, result, rate), flush=True)
        return _judge(result)


def _manage(site: Site, *words: str) -> str:
    """What `rfmanager` printed. Raises ProcessError when it says that it failed."""
    done = site.manage(*words)
    if done.returncode != 0:
        raise ProcessError(f"rfmanager {' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout.rstrip()


def _judge(result: Result) -> int:
    """0 when no read failed and every failed write was said to be uncertain, at most one per connection."""
    kept = all(command != "GET" and error == "UNCERTAIN" for command, error in result.errors)
    kept = kept and result.errors.total() <= CONNECTIONS
    print(f"\nmake demo: {'the promises held' if kept else 'the promises were broken'}", flush=True)
    return 0 if kept else 1


def _summary(site: Site, story: Story, result: Result, rate: float) -> str:
    ledger = result.ledger
    data = ""
    if ledger:
        data = (
            f"{ledger.acknowledged} writes were acknowledged, {ledger.lost} of them are missing. "
            f"{ledger.uncertain} were answered -UNCERTAIN or not at all, {ledger.doubled} were applied twice."
        )
    epochs = [receipt["epoch"] for receipt in json.loads(_manage(site, "history", "--json"))]
    receipts = "\n\n".join(_manage(site, "history", str(epoch)) for epoch in epochs)
    return f"""
What the clients saw: {CONNECTIONS} connections of redis-py without retries, SET, INCR and GET in turn,
{rate:.0f} operations/s asked for, {result.rate:.0f} done. The times are the longest in each part.

{story.tell(result)}

{data}
(Redis acknowledges a write before its replicas have it: what a killed master did not send is lost.)

What the managers did (rfmanager history):

{_manage(site, "history")}

{receipts}

What is now (rfmanager status):

{site.manage("status").stdout.rstrip()}"""


def _welcome(site: Site, ensemble: ZooKeeperEnsemble) -> str:
    rows = [["zookeeper", server.hosts, server.process.pid, server.role()] for server in ensemble.servers]
    rows += [
        ["redis-server", server.node, server.pid, {"slave": "replica"}.get(role := server.info()["role"], role)]
        for server in site.group.servers
    ]
    rows += [["rfmanager", "", process.pid, ""] for process in site.managers]
    rows += [["rfproxy", f"{HOST}:{port}", process.pid, ""] for port, process in site.proxies.items()]
    return f"\n{tabulate(rows, tablefmt='plain', disable_numparse=True)}\n"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def say(what: str) -> None:
    """What happens now."""
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)


def _interrupt(*_: object) -> NoReturn:
    for number in _ENDINGS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 when the promises held, 1 when not or when something did not start, 130 after Ctrl-C."""
    options = argparse.ArgumentParser(prog="deploy.demo", description=__doc__)
    options.add_argument(
        "--rate", type=float, default=RATE, help=f"operations per second, in total (default: {RATE:g})"
    )
    options.add_argument("--keep", action="store_true", help="leave the logs of managers and proxies behind")
    arguments = options.parse_args(argv)
    for number in _ENDINGS:
        signal.signal(number, _interrupt)
    try:
        return run_demo(arguments.rate, arguments.keep)
    except (ProcessError, redis.RedisError) as error:
        print(f"make demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmake demo: everything is stopped", flush=True)
        return 130


if __name__ == "__main__":
    sys.exit(main())
