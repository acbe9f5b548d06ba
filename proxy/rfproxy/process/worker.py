"""One worker: a process with an event loop, its share of the listening sockets, and a place of its own in the store.

    SIGTERM   no new clients; what is in flight is answered, at most for the drain timeout; then it ends
    RETIRE    no new clients; those that are there are served on, and parted with when they are silent

When its supervisor is no more, it does as after SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from uuid import uuid4

import structlog
import uvloop

from rfprotocol.errors import ConfigError
from rfprotocol.network.resolver import Resolver
from rfprotocol.resp.fast_path import COMPILED
from rfprotocol.settings import logging_setup
from rfprotocol.settings.yaml_file import read_secret
from rfprotocol.store.interface import TopologyStore
from rfprotocol.store.zookeeper import ZkStore
from rfprotocol.topology.znode_paths import Paths
from rfproxy.builtin import worker_queries
from rfproxy.core.durability import Durability
from rfproxy.core.identity import Account
from rfproxy.core.peers import first_number
from rfproxy.core.policy import ClientAuth, Policy, Reads, RetryWrites
from rfproxy.process import descriptor_budget
from rfproxy.process.listen_sockets import address_of
from rfproxy.process.worker_channel import Siblings
from rfproxy.runtime.address_file import AddressFile
from rfproxy.runtime.client_limits import Limits
from rfproxy.runtime.registration import Membership
from rfproxy.runtime.server import Server
from rfproxy.runtime.topology_cache import TopologyCache
from rfproxy.semantics import client_auth
from rfproxy.settings import ProxyConfig

READY = signal.Signals(signal.SIGRTMIN)
"""To the supervisor: this worker serves. A real-time signal, as those of several workers are not merged into one."""
RETIRE = signal.SIGUSR1
_NOT_FOR_US = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""What a terminal, or a `pkill`, sends to the supervisor and its workers alike."""
Login = tuple[str, str]
"""User, which may be empty, and password."""
FAILED, MISCONFIGURED = 1, 2
"""Exit statuses."""


def main(
    config: ProxyConfig,
    sockets: Sequence[socket.socket],
    supervisor: int,
    *,
    relieves: bool = False,
    siblings: str = "",
    former: Login | None = None,
) -> int:
    """The whole life of a worker, in a process just forked by `supervisor`. Returns the exit status.

    `relieves`: others serve until this one can, so nobody is let in before. `siblings`: the directory in which workers
    find each other, if there may be others. `former`: what the proxy said to servers before a reload.
    """
    try:
        repeats = logging_setup.Repeats(time.monotonic)
        logging_setup.configure(config.log_format, config.log_level, repeats=repeats, worker=os.getpid())
        work = _work(config, sockets, supervisor, repeats, relieves=relieves, siblings=siblings, former=former)
        status = uvloop.run(work)
        repeats.report(all=True)
    except ConfigError as error:
        print(f"rfproxy: {error}", file=sys.stderr)
        return MISCONFIGURED
    except BaseException:  # nothing may go on in what is a copy of the supervisor
        traceback.print_exc()
        return FAILED
    return status


class _Orders:
    """What this worker has been told."""

    def __init__(self, supervisor: int) -> None:
        self.retire = asyncio.Event()
        self.end = asyncio.Event()
        self.failed = False
        self.leaving = False
        self._supervisor = os.pidfd_open(supervisor)  # readable when that process has ended
        loop = asyncio.get_running_loop()
        loop.add_reader(self._supervisor, self._orphaned)
        loop.add_signal_handler(signal.SIGTERM, self._end)
        loop.add_signal_handler(RETIRE, self.retire.set)
        for number in _NOT_FOR_US:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # they were held back until now
        if os.getppid() != supervisor:  # it ended before, and its id is somebody else's
            self._orphaned()

    def report(self) -> None:
        """Tell the supervisor that this worker serves."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._supervisor, READY)

    def watch(self, beginning: asyncio.Task[None]) -> None:
        """End this worker when that task fails: it would never accept a client, and its supervisor would wait."""
        beginning.add_done_callback(self._begun)

    def _begun(self, beginning: asyncio.Task[None]) -> None:
        if not beginning.cancelled() and (error := beginning.exception()) is not None:
            self._fail(f"it cannot begin to serve: {error!r}")

    def need(self, manager: asyncio.Task[None]) -> None:
        """End this worker when that task ends before it: nothing would be failed over any more."""
        manager.add_done_callback(self._manager_ended)

    def _manager_ended(self, manager: asyncio.Task[None]) -> None:
        if not self.leaving:
            error = None if manager.cancelled() else manager.exception()
            self._fail(f"the manager inside has ended: {error or 'for no known reason'}")

    def _fail(self, why: str) -> None:
        structlog.get_logger().error("worker_failed", error=why)
        self.failed = True
        self._end()

    def _end(self) -> None:
        self.end.set()
        self.retire.set()

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self._supervisor)
        structlog.get_logger().warning("supervisor_gone", error="this worker leaves, too")
        self._end()


async def _work(
    config: ProxyConfig,
    sockets: Sequence[socket.socket],
    supervisor: int,
    repeats: logging_setup.Repeats,
    *,
    relieves: bool,
    siblings: str,
    former: Login | None,
) -> int:
    orders = _Orders(supervisor)
    log = structlog.get_logger()
    loop = asyncio.get_running_loop()
    repeats.later = lambda seconds, ring: loop.call_soon_threadsafe(loop.call_later, seconds, ring)
    limits, policy = affordable(limits_of(config), policy_of(config, [address_of(sock).host for sock in sockets]))
    resolver = Resolver()
    server = Server(policy, limits=limits, log=log, first_number=first_number(os.getpid()), resolver=resolver)
    server.stats.log = repeats.limiter
    read = partial(account_of, config, config.password_file) if config.password_file is not None else None
    server.router.reception.rereads(read, _own(*former) if former else None)
    address = address_of(sockets[0])
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(resolver.close)
        await stack.enter_async_context(_joined(server, siblings))
        if not relieves:
            await server.listen(sockets)
        store, group = await stack.enter_async_context(_store(config, orders, resolver, former))
        addresses = AddressFile(config.state_dir, group)
        resolver.remember(addresses.load())
        resolver.subscribe(addresses.save)
        name = f"{socket.gethostname()}-{address.port}-{os.getpid()}-{uuid4().hex[:6]}"
        # The store of the embedded mode remembers by itself, and more than the topology.
        cache = None if config.embedded else TopologyCache(config.state_dir, group)
        membership = Membership(server, store, Paths(config.znode_path), name, cache)
        core = "compiled" if COMPILED else "interpreted"
        log.info("relieving" if relieves else "listening", address=str(address), name=name, store=group, core=core)
        await membership.start(str(address))
        ready = asyncio.create_task(_begin(orders, server, membership, sockets if relieves else (), config))
        orders.watch(ready)
        await orders.retire.wait()
        ready.cancel()
        if not orders.end.is_set():
            log.info("retiring", clients=server.stats.clients)
            await _retire(server, orders, config.retire_timeout)
        log.info("draining", clients=server.stats.clients)
        cut_off = await server.drain(config.drain_timeout)
        await membership.stop()
        log.info("stopped", clients_cut_off=cut_off)
    repeats.later = None
    return FAILED if orders.failed else 0


async def _begin(
    orders: _Orders, server: Server, membership: Membership, sockets: Sequence[socket.socket], config: ProxyConfig
) -> None:
    """Report when this worker serves. `sockets`: where others serve until whoever comes to this one may write, too."""
    await membership.informed.wait()
    if sockets and config.on_store_loss == "hold":
        await membership.sure.wait()
    await server.listen(sockets)
    orders.report()


async def _retire(server: Server, orders: _Orders, timeout: float) -> None:
    server.retire()
    waits = [asyncio.ensure_future(server.emptied()), asyncio.ensure_future(orders.end.wait())]
    await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


@contextlib.asynccontextmanager
async def _store(
    config: ProxyConfig, orders: _Orders, resolver: Resolver, former: Login | None
) -> AsyncIterator[tuple[TopologyStore, str]]:
    """The store, and what tells the group of servers from others."""
    if not config.embedded:
        store = ZkStore(config.zookeeper, session_timeout=config.session_timeout, patient=True)
        yield store, config.zookeeper + config.znode_path
        return
    from rfproxy.process.embedded import embedded  # noqa: PLC0415 - the manager takes 8 MB, which others need not have

    async with embedded(config, resolver, former) as (inside, manager):
        orders.need(manager)
        try:
            yield inside, "embedded-" + "-".join(map(str, sorted(config.nodes)))
        finally:
            orders.leaving = True


@contextlib.asynccontextmanager
async def _joined(server: Server, directory: str) -> AsyncIterator[None]:
    """The other workers can ask this one, and be asked. Without a directory there are none."""
    if not directory:
        yield
        return
    router = server.router

    def respond(question: list[bytes]) -> list[bytes] | None:
        return worker_queries.answer(router, question, server.now())

    siblings = Siblings(directory, respond, stats=server.stats, log=server.log, now=server.now)
    try:
        await siblings.open()
    except OSError as error:
        server.log.warning("workers_apart", error=f"CLIENT LIST and its like know this worker's clients only: {error}")
    else:
        router.peers = siblings
        worker_queries.join(router)
    try:
        yield
    finally:
        await siblings.close()


def affordable(limits: Limits, policy: Policy) -> tuple[Limits, Policy]:
    """The same with as many clients, and dedicated connections, as there may be open files."""
    wanted = descriptor_budget.wanted(limits.clients)
    allowed = allow_descriptors(wanted)
    budget = descriptor_budget.share(limits.clients, allowed)
    if budget.clients < limits.clients:
        structlog.get_logger().warning(
            "few_descriptors",
            allowed=allowed,
            wanted=wanted,
            max_clients=budget.clients,
            dedicated=budget.dedicated,
            error="fewer clients are admitted: raise the hard limit of open files (ulimit -Hn, LimitNOFILE)",
        )
        because = f"the limit of open files, {allowed}, leaves room for no more"
        limits = replace(limits, clients=budget.clients, clients_because=because)
    return limits, replace(policy, most_dedicated=budget.dedicated)


def allow_descriptors(wanted: int) -> int:
    """Raise this process' limit of open files to the hard one, or to `wanted` if there is none; returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    allowed = max(soft, wanted) if hard == resource.RLIM_INFINITY else hard
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed


def policy_of(config: ProxyConfig, hosts: Sequence[str] = ()) -> Policy:
    """The options that the core of one worker needs; `hosts` are the addresses that it listens on."""
    account = account_of(config)
    return Policy(
        reads=Reads(config.reads),
        hold_timeout=config.hold_timeout,
        hold_bytes=_part(int(config.hold_bytes), config.workers),
        retry_writes=RetryWrites(config.retry_writes),
        leaseless=config.on_store_loss == "continue",
        account=account,
        client_auth=client_auth_of(config, account, hosts),
        allow_admin=config.allow_admin,
        spares=config.spare_connections,
        durable=durability_of(config),
        workers=config.workers,
    )


def account_of(config: ProxyConfig, file: str | None = None) -> Account | None:
    """The proxy's own, as its options say, or as the password file says now. Raises ConfigError."""
    given = config.password.get_secret_value() if config.password else ""
    password = read_secret(file) if file is not None else given
    return _own(config.username or "", password) if password else None


def _own(username: str, password: str) -> Account:
    return Account(username.encode(), password.encode(), own=True)


def client_auth_of(config: ProxyConfig, account: Account | None, hosts: Sequence[str]) -> ClientAuth:
    """Who a client is that says no AUTH. A password that is lent to other hosts is worth a warning."""
    if config.client_auth is None:
        return client_auth.default_of(account, hosts)
    chosen = ClientAuth(config.client_auth)
    if chosen is not client_auth.default_of(account, hosts) and chosen is ClientAuth.PROXY_USER:
        structlog.get_logger().warning(
            "open_to_clients",
            listen=list(hosts),
            error="clients on other hosts act as the proxy's user without a password: --client-auth required ends that",
        )
    return chosen


def durability_of(config: ProxyConfig) -> Durability | None:
    """What a write needs besides the master's reply, if anything."""
    if config.write_safety == "async":
        return None
    return Durability(config.durable_replicas, config.durable_timeout)


def limits_of(config: ProxyConfig) -> Limits:
    """The options about single clients, and one worker's part of those about all."""
    return Limits(
        clients=_part(config.max_clients, config.workers),
        idle=config.timeout,
        keepalive=config.tcp_keepalive,
        query=int(config.client_query_buffer_limit),
        memory=int(config.maxmemory_clients),
        output=config.client_output_buffer_limit,
    )


def _part(whole: int, workers: int) -> int:
    return -(-whole // workers)
