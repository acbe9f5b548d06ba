"""The embedded mode: the manager runs inside the proxy, and both meet at a store in memory.

The one place where a program imports the other. It is for one host and one proxy: nobody else may move the master role
of these servers. What the store holds outlives the process in a file of the state directory; operators' commands
reach it through a socket there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
from collections.abc import AsyncIterator
from functools import partial

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from rfmanager.daemon.daemon import Daemon, Settings
from rfmanager.monitoring.failure_detector import Limits
from rfmanager.monitoring.redis_admin import Credentials
from rfprotocol.embedded.record_file import TreeFile
from rfprotocol.embedded.record_keeper import TreeKeeper
from rfprotocol.embedded.socket_protocol import SOCKET
from rfprotocol.embedded.socket_server import StoreServer, open_socket
from rfprotocol.errors import ConfigError, RecordError
from rfprotocol.network.resolver import Resolver
from rfprotocol.store.interface import Change, Put, TopologyStore
from rfprotocol.store.memory import MemStore, MemTree, TreeState
from rfprotocol.topology.topology import Topology
from rfprotocol.topology.znode_paths import DEFAULT_ROOT, Paths
from rfproxy.settings import ProxyConfig

LEAVING = 3.0
"""Seconds that another process has to leave the state directory, before this one gives up."""
_LOOKS = 60
_ADVICE = re.compile(r"'rfmanager ([a-z]+)")


def recall(config: ProxyConfig) -> TreeState | None:
    """What an earlier process has left, if anything. Raises ConfigError when that cannot be used."""
    file = TreeFile(config.state_dir)
    state = file.load()
    entry = state.records.get(Paths(config.znode_path).nodes) if state else None
    if entry is None:
        return state
    try:
        known = Topology.decode(entry.data).nodes
    except RecordError as error:
        raise ConfigError(f"{file.path} says who is master and cannot be used: {error}") from None
    if known and known.isdisjoint(config.nodes):
        said = ", ".join(map(str, sorted(known)))
        raise ConfigError(
            f"--nodes: {file.path} is about other servers ({said}): give this proxy a --state-dir of its own, or move "
            "that file away"
        )
    return state


@contextlib.asynccontextmanager
async def embedded(
    config: ProxyConfig, resolver: Resolver | None = None, former: tuple[str, str] | None = None
) -> AsyncIterator[tuple[TopologyStore, asyncio.Task[None]]]:
    """The manager runs, operators can reach it, and the store is the proxy's way to it. Raises ConfigError.

    The task is the manager. Whoever enters has to watch it: without it there are no failovers. `former`: user and
    password before a reload.
    """
    file = TreeFile(config.state_dir)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_claimed(file))
        state = recall(config)
        keeper = TreeKeeper(file.save, str(file.path), partial(_may_be_forgotten, Paths(config.znode_path)))
        stack.push_async_callback(keeper.close)
        tree = MemTree(asyncio.Event, keeper, state)
        manager = await stack.enter_async_context(_manager(config, tree, resolver, former))
        server = StoreServer(lambda: MemStore(tree), lambda: _notice(file, keeper))
        await stack.enter_async_context(_served(server, file))
        yield MemStore(tree), manager


@contextlib.asynccontextmanager
async def _claimed(file: TreeFile) -> AsyncIterator[None]:
    """The state directory is this process' own."""
    looks, claim = 0, file.claim()
    while claim is None and looks < _LOOKS:
        await asyncio.sleep(LEAVING / _LOOKS)
        looks, claim = looks + 1, file.claim()
    if claim is None:
        raise ConfigError(
            f"--state-dir: another rfproxy in embedded mode uses {file.folder}: end that one, or give this one a "
            "directory of its own"
        )
    try:
        yield
    finally:
        os.close(claim)


@contextlib.asynccontextmanager
async def _manager(
    config: ProxyConfig, tree: MemTree, resolver: Resolver | None, former: tuple[str, str] | None
) -> AsyncIterator[asyncio.Task[None]]:
    """A manager is at work: the task."""
    password = config.password.get_secret_value() if config.password else None
    settings = Settings(
        nodes=config.nodes,
        root=config.znode_path,
        credentials=Credentials(config.username, password),
        password_file=config.password_file,
        former_credentials=Credentials(former[0] or None, former[1]) if former else None,
        limits=Limits(max_failures=config.max_failures),
    )
    store = MemStore(tree)
    await store.start()
    daemon = Daemon(settings, store, "embedded", _log(config), failpoint=lambda name: None, resolver=resolver)
    task = asyncio.create_task(daemon.run())
    try:
        yield task
    finally:
        await daemon.stop()
        await asyncio.wait([task])  # what it failed of, if it did, has been said
        await store.close()


@contextlib.asynccontextmanager
async def _served(server: StoreServer, file: TreeFile) -> AsyncIterator[None]:
    """Operators reach it; that they cannot be served is no reason not to serve clients."""
    path = file.folder / SOCKET
    try:
        await server.open(open_socket(path))
    except OSError as error:
        structlog.get_logger().error(
            "operators_not_served", path=str(path), error=f"rfmanager's commands do not reach it: {error.strerror}"
        )
    try:
        yield
    finally:
        await server.close()
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _may_be_forgotten(paths: Paths, changes: tuple[Change, ...]) -> bool:
    """A master is withdrawn, or its successor chosen, or something is noted of the servers: who begins anew finds the
    same, and does it again.

    Nothing is written to a server before the record names it as the master. That is waited for.
    """
    return all(
        isinstance(change, Put)
        and (change.path == paths.last_known or (change.path == paths.nodes and _has_no_master(change.data)))
        for change in changes
    )


def _has_no_master(data: bytes) -> bool:
    with contextlib.suppress(RecordError):
        return Topology.decode(data).master is None
    return False


def _notice(file: TreeFile, keeper: TreeKeeper) -> str:
    return f"{file.path} cannot be written, what changes now is not remembered: {keeper.problem}" * bool(keeper.problem)


def _log(config: ProxyConfig) -> FilteringBoundLogger:
    """The manager's log: the commands that it advises are those that reach this proxy."""
    options = f"--state-dir {shlex.quote(str(config.state_dir.absolute()))}"
    if config.znode_path != DEFAULT_ROOT:
        options += f" --znode-path {config.znode_path}"

    def complete(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {
            name: _ADVICE.sub(lambda found: f"{found[0]} {options}", value) if isinstance(value, str) else value
            for name, value in event.items()
        }

    shared = structlog.get_config()
    log: FilteringBoundLogger = structlog.wrap_logger(
        shared["logger_factory"](), [complete, *shared["processors"]], shared["wrapper_class"]
    )
    return log
