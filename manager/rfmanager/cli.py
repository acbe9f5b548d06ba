"""`rfmanager`: the daemon, and the commands of operators.

Exit status: 0 done; 1 not done, stderr says why in one line, or `doctor` found something unsafe, or `status` no master;
2 an option or a file is wrong; 3 `status` found a master and some trouble; 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace

import structlog
import uvloop

from rfmanager import gem_flags
from rfmanager.daemon.daemon import Daemon, Settings
from rfmanager.monitoring.redis_admin import Credentials
from rfmanager.operator import doctor, doctor_facts, inspection, migration, operations, rendering
from rfmanager.operator.operations import NotConnected
from rfmanager.settings import ManagerConfig, parser, with_gems_patience
from rfprotocol.embedded.socket_client import RemoteStore
from rfprotocol.embedded.socket_protocol import SOCKET
from rfprotocol.errors import ConfigError, OperationFailed, RfError
from rfprotocol.settings import logging_setup
from rfprotocol.settings.cli_parser import OptionParser, Parsed
from rfprotocol.settings.fields import STORE_OPTIONS
from rfprotocol.store.interface import StoreState, TopologyStore
from rfprotocol.store.zookeeper import ZkStore
from rfprotocol.topology.records import Outcome
from rfprotocol.topology.topology import REDIS_PORT, Node

DONE, NOT_DONE, TROUBLE, INTERRUPTED = 0, 1, 3, 130
_CHECK = "check"
_ENDINGS = (signal.SIGINT, signal.SIGTERM)

_FIRST_WORD = 1.0
"""Seconds that ZooKeeper may be away at the start before the daemon says so."""
_NEXT_WORD = 30.0


def main(argv: Sequence[str] | None = None) -> int:
    """The program. Returns the exit status; raises SystemExit(2) for wrong options."""
    parsed = _parser().parse_or_exit(argv)
    if parsed.is_gems:
        parsed = _patient(parsed)
    if parsed.command == _CHECK:
        for notice in parsed.notices:
            _complain(f"warning: {notice}", DONE)
        return DONE  # else it would have been said
    return _finish(_daemon(parsed.config, parsed.notices) if not parsed.command else _command(parsed))


def redis_node_manager(argv: Sequence[str] | None = None) -> int:
    """The daemon under the name of the gem's, with its flags and its patience. As `main`."""
    prog = "redis_node_manager"
    try:
        asked = gem_flags.translate(sys.argv[1:] if argv is None else argv)
    except ConfigError as error:
        return _complain(error, 2, prog)
    if asked.wants_help:
        print(gem_flags.HELP, end="")
        return DONE
    parsed = _patient(parser(prog).parse_or_exit(asked.argv))
    return _finish(_daemon(parsed.config, (*asked.notices, *parsed.notices)), prog)


def _patient(parsed: Parsed[ManagerConfig]) -> Parsed[ManagerConfig]:
    config, notice = with_gems_patience(parsed.config)
    return replace(parsed, config=config, notices=(*parsed.notices, *([notice] if notice else [])))


def _finish(work: Coroutine[None, None, int], prog: str = "rfmanager") -> int:
    try:
        status = _run(work)
        sys.stdout.flush()  # here, where a broken pipe is dealt with
        return status
    except ConfigError as error:
        return _complain(error, 2, prog)
    except RfError as error:
        return _complain(error, NOT_DONE, prog)
    except asyncio.CancelledError:
        return _complain("interrupted", INTERRUPTED, prog)
    except BrokenPipeError:  # the reader of a pipe has seen enough; Python would complain of it once more at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOT_DONE


def _parser() -> OptionParser[ManagerConfig]:
    options = parser()
    _client_command(
        options,
        "status",
        "show servers, managers and proxies; exit status 1 when there is no master, 3 when there is some trouble",
        _json_option,
        more=("brake_limit",),
    )
    _client_command(options, "failover", "make a replica the master, without losing anything", _failover_options)
    _client_command(
        options,
        "adopt",
        "let a server be overwritten that holds data of another history, so that it becomes a replica",
        _server_argument,
    )
    _client_command(options, "forget", "drop a server that no manager is configured with any more", _server_argument)
    _client_command(options, "pause", "let the managers watch without acting, for maintenance")
    _client_command(options, "resume", "let the managers act again")
    _client_command(options, "history", "show the last changes of master", _json_option, _history_options)
    more = ("nodes", "username", "password", "password_file", "max_failures", "probe_timeout")
    _client_command(
        options, "doctor", "say what makes the group unsafe, and how to put it right", _json_option, more=more
    )
    every = tuple(ManagerConfig.model_fields)
    options.command(_CHECK, "say whether the options of the daemon are good, and exit", every, ("nodes", "zkservers"))
    return options


def _client_command(
    options: OptionParser[ManagerConfig],
    name: str,
    help: str,
    *extend: Callable[[argparse.ArgumentParser], None],
    more: Sequence[str] = (),
) -> None:
    command = options.command(name, help, (*STORE_OPTIONS, "state_dir", *more), (("zkservers", "state_dir"),))
    command.add_argument(
        "--connect-timeout",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="for ZooKeeper, or rfproxy in embedded mode (default: 5)",
    )
    for add in extend:
        add(command)


def _json_option(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


def _failover_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--to", type=_node, metavar="HOST:PORT", help="the next master (default: any replica)")
    command.add_argument(
        "--timeout", type=_seconds, default=30.0, metavar="SECONDS", help="then give up and withdraw it (default: 30)"
    )
    command.add_argument(
        "--force", action="store_true", help="also when a full disk makes the former or the next master useless"
    )


def _server_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("server", type=_node, metavar="HOST:PORT", help="the server")


def _history_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("epoch", type=_count, nargs="?", metavar="EPOCH", help="show all about this one")
    command.add_argument("-n", type=_count, default=20, metavar="COUNT", help="so many of them (default: 20)")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) < float("inf"):
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a time in seconds")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count")
    return int(text)


def _node(text: str) -> Node:
    try:
        return Node.parse(text, REDIS_PORT)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _run(work: Coroutine[None, None, int]) -> int:
    """Run on uvloop; Ctrl-C and SIGTERM cancel the work, so that it can clean up."""

    async def cancellable() -> int:
        task = asyncio.ensure_future(work)
        for number in _ENDINGS:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await task

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(cancellable())


def _complain(what: object, status: int, prog: str = "rfmanager") -> int:
    print(f"{prog}: {what}", file=sys.stderr)
    return status


# The daemon.


async def _daemon(config: ManagerConfig, notices: Sequence[str] = ()) -> int:
    repeats, loop = logging_setup.Repeats(time.monotonic), asyncio.get_running_loop()
    repeats.later = lambda seconds, ring: loop.call_soon_threadsafe(loop.call_later, seconds, ring)
    logging_setup.configure(config.log_format, config.least_log_level, repeats=repeats)
    log = structlog.get_logger()
    store = ZkStore(config.zookeeper, session_timeout=config.session_timeout)
    daemon = Daemon(Settings.of(config), store, _unique_name(), log)
    for notice in notices:
        log.warning(notice, manager=daemon.name)
    log.info("started", manager=daemon.name, nodes=config.nodes, zookeeper=config.zookeeper, root=config.znode_path)
    waiting = asyncio.create_task(_say_that_it_waits(store, config))
    loop.add_signal_handler(signal.SIGHUP, daemon.reload)
    try:
        await store.start()
        await daemon.run()
    except asyncio.CancelledError:
        pass  # asked to end: leadership was given up on the way here
    finally:
        waiting.cancel()
        await store.close()
        repeats.later = None
        repeats.report(all=True)
    log.info("stopped", manager=daemon.name)
    return DONE


def _unique_name() -> str:
    """Tells managers apart, also two on one host, and one before a restart from the one after it."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


async def _say_that_it_waits(store: TopologyStore, config: ManagerConfig) -> None:
    """Later losses are reported by the store; that it was never there is not."""
    await asyncio.sleep(_FIRST_WORD)
    while store.state is not StoreState.CONNECTED and store.session == 0:
        why = store.trouble or "does not answer"
        structlog.get_logger().warning(f"waiting for ZooKeeper, which {why}", zookeeper=config.zookeeper)
        await asyncio.sleep(_NEXT_WORD)


# Commands.


async def _command(parsed: Parsed[ManagerConfig]) -> int:
    config, arguments = parsed.config, parsed.arguments
    # What the store says of its connection would only be in the way of the answer.
    level: logging_setup.Level = config.log_level if "log_level" in config.model_fields_set else "error"
    logging_setup.configure(config.log_format, level)
    try:
        return await _at_the_store(parsed)
    except NotConnected as error:
        if parsed.command == "doctor" and config.nodes:
            return await _doctor_without_store(config, arguments, str(error))
        raise


async def _at_the_store(parsed: Parsed[ManagerConfig]) -> int:
    config, arguments = parsed.config, parsed.arguments
    if config.state_dir is None:
        store = ZkStore(config.zookeeper, session_timeout=config.session_timeout)
        async with operations.connected(store, arguments.connect_timeout, config.zookeeper):
            return await COMMANDS[parsed.command](store, config, arguments)
    inside = RemoteStore(config.state_dir / SOCKET, session_timeout=config.session_timeout)
    async with operations.connected(inside, arguments.connect_timeout, str(inside.path), lambda: _absence(inside)):
        if inside.notice:
            _complain(inside.notice, NOT_DONE)
        return await COMMANDS[parsed.command](inside, config, arguments)


def _absence(store: RemoteStore) -> str:
    why = store.trouble or "no answer"
    return f"{store.path}: {why}: does an rfproxy run with --nodes and this --state-dir?"


async def _status(store: TopologyStore, config: ManagerConfig, arguments: argparse.Namespace) -> int:
    snapshot = await operations.status(store, config.paths, config.brake_limit)
    print(rendering.status_json(snapshot) if arguments.json else rendering.status_text(snapshot))
    if not snapshot.has_master:
        return NOT_DONE
    return TROUBLE if rendering.troubles(snapshot) or snapshot.unreadable else DONE


async def _failover(store: TopologyStore, config: ManagerConfig, arguments: argparse.Namespace) -> int:
    if warned := operations.left_behind(await operations.status(store, config.paths), arguments.to):
        _complain(f"warning: {warned}", DONE)
    try:
        receipt = await operations.failover(store, config.paths, arguments.to, arguments.timeout, force=arguments.force)
    except asyncio.CancelledError:
        raise OperationFailed("interrupted: the request is withdrawn") from None
    print(rendering.receipt_text(await operations.completed(store, config.paths, receipt)))
    return DONE if receipt.outcome is Outcome.DONE else NOT_DONE


async def _adopt(store: TopologyStore, config: ManagerConfig, arguments: argparse.Namespace) -> int:
    found = await operations.adopt(store, config.paths, arguments.server)
    print(f"{found.node} may be overwritten now: {found.keys} keys of another history go when it becomes a replica")
    return DONE


async def _forget(store: TopologyStore, config: ManagerConfig, arguments: argparse.Namespace) -> int:
    await operations.forget(store, config.paths, arguments.server)
    print(f"{arguments.server} is forgotten")
    return DONE


async def _pause(store: TopologyStore, config: ManagerConfig, arguments: argparse.Namespace) -> int:
    before = await operations.pause(store, config.paths, _operator())
    snapshot = await operations.status(store, config.paths)
    if snapshot.gem_leads:
        _complain(f"warning: {migration.gems_managers(snapshot)} lead and do not know of pauses", DONE)
    print(f"paused already, {rendering.pause_text(before)}" if before else "paused: nobody is promoted until 'resume'")
    return DONE


async def _resume(store: TopologyStore, config: ManagerConfig, arguments: argparse.Namespace) -> int:
    was_paused = await operations.resume(store, config.paths)
    print("resumed: the managers act again" if was_paused else "the managers were not paused")
    return DONE


async def _history(store: TopologyStore, config: ManagerConfig, arguments: argparse.Namespace) -> int:
    if arguments.epoch:
        receipt = await operations.receipt(store, config.paths, arguments.epoch)
        print(rendering.history_json([receipt]) if arguments.json else rendering.receipt_text(receipt))
        return DONE
    receipts, unreadable = await operations.history(store, config.paths, arguments.n)
    for line in unreadable:
        _complain(line, NOT_DONE)
    print(rendering.history_json(receipts) if arguments.json else rendering.history_text(receipts))
    return DONE


async def _doctor(store: TopologyStore, config: ManagerConfig, arguments: argparse.Namespace) -> int:
    group = await inspection.inspect(
        store,
        config.paths,
        config.nodes,
        _credentials(config),
        asked_timeout=config.session_timeout,
        silence=_silence(config),
    )
    return _say_findings(group, arguments)


async def _doctor_without_store(config: ManagerConfig, arguments: argparse.Namespace, why: str) -> int:
    group = await inspection.inspect_servers(
        config.nodes, _credentials(config), silence=_silence(config), store_trouble=why
    )
    return _say_findings(group, arguments)


def _credentials(config: ManagerConfig) -> Credentials:
    return Credentials(config.username, config.password.get_secret_value() if config.password else None)


def _silence(config: ManagerConfig) -> float:
    return config.limits.silence


def _say_findings(group: doctor_facts.GroupFacts, arguments: argparse.Namespace) -> int:
    findings = doctor.examine(group)
    print(rendering.findings_json(findings) if arguments.json else rendering.findings_text(findings))
    return NOT_DONE if any(finding.severity is doctor_facts.Severity.UNSAFE for finding in findings) else DONE


_Command = Callable[[TopologyStore, ManagerConfig, argparse.Namespace], Awaitable[int]]
COMMANDS: dict[str, _Command] = {
    "status": _status,
    "failover": _failover,
    "adopt": _adopt,
    "forget": _forget,
    "pause": _pause,
    "resume": _resume,
    "history": _history,
    "doctor": _doctor,
}


def _operator() -> str:
    with contextlib.suppress(KeyError, OSError):
        return f"{getpass.getuser()}@{socket.gethostname()}"
    return f"uid {os.getuid()}@{socket.gethostname()}"  # a container's user without a name
