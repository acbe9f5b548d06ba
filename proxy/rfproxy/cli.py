"""The command `rfproxy`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

import structlog
import uvloop

from rfprotocol import logs
from rfprotocol.errors import ConfigError
from rfprotocol.paths import Paths
from rfprotocol.store import TopologyStore
from rfprotocol.zkstore import ZkStore
from rfproxy.cache import TopologyCache
from rfproxy.config import ProxyConfig, parser
from rfproxy.durable import Durability
from rfproxy.embedded import Embedded
from rfproxy.greeting import Account
from rfproxy.limits import Limits
from rfproxy.membership import Membership
from rfproxy.replay import RetryWrites
from rfproxy.router import Policy, Reads
from rfproxy.server import Server

SPARE_DESCRIPTORS = 256
"""For lanes, the store and files, besides the clients."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT. Exit status 0, or 2 when the configuration is wrong."""
    try:
        config = parser().parse(argv).config
        logs.configure(config.log_format, config.log_level)
        uvloop.run(serve(config))
    except ConfigError as error:
        print(f"rfproxy: {error}", file=sys.stderr)
        return 2
    return 0


async def serve(config: ProxyConfig) -> None:
    """One proxy, from its listener to its end. Raises ConfigError when it cannot listen."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    log = structlog.get_logger()
    limits = limits_of(config)
    wanted = limits.clients + SPARE_DESCRIPTORS
    if (allowed := allow_descriptors(wanted)) < wanted:
        limits = replace(limits, clients=max(1, allowed - SPARE_DESCRIPTORS))
        log.warning(
            "few_descriptors",
            allowed=allowed,
            wanted=wanted,
            max_clients=limits.clients,
            error="raise the limit of open files (ulimit -n)",
        )
    server = Server(policy_of(config), limits=limits, log=log)
    address = await server.listen(config.listen)
    async with contextlib.AsyncExitStack() as stack:
        store: TopologyStore
        if config.embedded:
            store = await stack.enter_async_context(Embedded(config))
            group = "embedded-" + "-".join(map(str, sorted(config.nodes)))
        else:
            store = ZkStore(config.zookeeper, session_timeout=config.session_timeout)
            group = config.zookeeper + config.znode_path
        name = f"{socket.gethostname()}-{address.port}-{os.getpid()}-{uuid4().hex[:6]}"
        membership = Membership(server, store, Paths(config.znode_path), name, TopologyCache(config.state_dir, group))
        log.info("listening", address=str(address), name=name, store=group)
        await membership.start(str(address))
        await stop.wait()
        log.info("draining", clients=server.stats.clients)
        cut_off = await server.drain(config.drain_timeout)
        await membership.stop()
        log.info("stopped", clients_cut_off=cut_off)


def allow_descriptors(wanted: int) -> int:
    """Raise this process' limit of open files towards `wanted`, as Redis does; returns what is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed


def policy_of(config: ProxyConfig) -> Policy:
    """The options that the core needs."""
    password = config.password.get_secret_value() if config.password else ""
    account = Account((config.username or "").encode(), password.encode()) if password else None
    return Policy(
        reads=Reads(config.reads),
        hold_timeout=config.hold_timeout,
        hold_bytes=int(config.hold_bytes),
        retry_writes=RetryWrites(config.retry_writes),
        leaseless=config.on_store_loss == "continue",
        account=account,
        allow_admin=config.allow_admin,
        durable=durability_of(config),
    )


def durability_of(config: ProxyConfig) -> Durability | None:
    """What a write needs besides the master's reply, if anything."""
    if config.write_safety == "async":
        return None
    return Durability(config.durable_replicas, config.durable_timeout)


def limits_of(config: ProxyConfig) -> Limits:
    """The options about single clients."""
    return Limits(
        clients=config.max_clients,
        idle=config.timeout,
        keepalive=config.tcp_keepalive,
        query=int(config.client_query_buffer_limit),
        output=config.client_output_buffer_limit,
    )
