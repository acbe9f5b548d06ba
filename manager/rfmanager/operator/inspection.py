"""Asks the servers of a group, and the store, for what `doctor` judges. Changes nothing."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from rfmanager.evidence.consistency import disagreements, same_process, too_few
from rfmanager.evidence.last_known import holding
from rfmanager.monitoring.conditions import meaning
from rfmanager.monitoring.redis_admin import Credentials, RedisAdmin, not_on_disk
from rfmanager.operator import migration, operations
from rfmanager.operator.doctor import NEEDED, SETTINGS
from rfmanager.operator.doctor_facts import GroupFacts, ServerFacts, User
from rfmanager.operator.rendering import pause_text, slowed_down_text
from rfprotocol.errors import NodeRefused, NodeUnreachable, OperationFailed, StoreUnavailable
from rfprotocol.network.resolver import Resolver
from rfprotocol.store.interface import TopologyStore
from rfprotocol.topology.topology import Node
from rfprotocol.topology.znode_paths import Paths


async def inspect(
    store: TopologyStore,
    paths: Paths,
    nodes: Sequence[Node],
    credentials: Credentials,
    *,
    asked_timeout: float,
    silence: float,
) -> GroupFacts:
    """The facts about `nodes`, or else about all that the store knows.

    `asked_timeout` is of `store`, `silence` the shortest that makes a server dead for the managers, both in seconds.

    A server that does not answer is a fact, too; with `nodes` a store that does not answer, as well. Raises
    StoreUnavailable, and OperationFailed when no server is known.
    """
    try:
        known = await operations.status(store, paths)
    except StoreUnavailable as error:
        if not nodes:
            raise
        return await inspect_servers(nodes, credentials, silence=silence, store_trouble=str(error))
    nodes = nodes or [server.node for server in known.servers]
    if not nodes:
        raise OperationFailed(f"no server is known at {paths.root}: name them with -n, or start rfmanager first")
    group = await inspect_servers(nodes, credentials, silence=silence)
    # Where nobody has ever been master, managers may never have been started.
    in_use = (known.topology is not None or bool(known.managers)) and not known.gem_leads
    return replace(
        group,
        asked_timeout=asked_timeout,
        granted_timeout=store.session_timeout,
        accounts={name: proxy.account for name, proxy in known.proxies.items() if proxy.account},
        too_few=too_few(known.managers, known.primary) if in_use else "",
        disagreements=disagreements(known.managers, known.primary),
        doubles=same_process(known.managers),
        strangers={report.node: holding(report) for report in known.strangers},
        slowed_down=slowed_down_text(known.brake) if known.brake.on else "",
        paused=pause_text(known.pause) if known.pause else "",
        migration=migration.findings(known),
    )


async def inspect_servers(
    nodes: Sequence[Node], credentials: Credentials, *, silence: float, store_trouble: str = ""
) -> GroupFacts:
    """What can be known without the store, and why it could not be asked."""
    resolver = Resolver()
    servers = await asyncio.gather(*(_inspect(node, credentials, resolver) for node in nodes))
    resolver.close()
    return GroupFacts(
        servers, with_password=credentials.password is not None, silence=silence, store_trouble=store_trouble
    )


async def _inspect(node: Node, credentials: Credentials, resolver: Resolver) -> ServerFacts:
    inspector = Inspector(node, credentials, resolver=resolver)
    try:
        await inspector.locate()
        return await inspector.facts()
    except (NodeRefused, NodeUnreachable) as error:
        condition = error.reason.value if isinstance(error, NodeUnreachable) else error.code.lower()
        said, words = str(error).removeprefix(f"{node} "), meaning(condition)
        return ServerFacts(node, trouble=f"{said.rstrip('.')}; {words}" if words else said)
    finally:
        await inspector.close()


class Inspector(RedisAdmin):
    """A manager's connection, to ask what a manager need not know."""

    async def facts(self) -> ServerFacts:
        """All of them. Raises NodeRefused, NodeUnreachable."""
        info = self._fields(await self._ask("INFO"))
        settings = await self._settings()
        user, denied = await self._rights()
        clock, clock_error = await self._clock()
        return ServerFacts(
            self.node,
            role=info.get("role", ""),
            supervised=info.get("process_supervised", "no"),
            settings=settings,
            user=user,
            denied=denied,
            clock=clock,
            clock_error=clock_error,
            run_id=info.get("run_id", ""),
            version=_version(info),
            unsaved=not_on_disk(info),
            users=await self._users(),
        )

    async def _settings(self) -> Mapping[str, str] | None:
        try:
            # All at once: Redis before 7.0 takes one pattern only.
            said: Mapping[str, str] = await self._ask("CONFIG GET", "*")
        except NodeRefused:
            return None
        # Of a password it matters only that there is one.
        return {name: "set" if name == "masterauth" and said[name] else said[name] for name in SETTINGS if name in said}

    async def _users(self) -> Mapping[str, User] | None:
        try:
            return users(await self._ask("ACL", "LIST"))
        except NodeRefused:
            return None

    async def _rights(self) -> tuple[str, Mapping[str, str] | None]:
        user = self._keyring.current.username or "default"
        try:
            user = str(await self._ask("ACL", "WHOAMI"))
            await self._ask("ACL", "DRYRUN", user, "PING")
        except NodeRefused:
            return user, None
        said = {name: await self._verdict(user, command) for name, command in NEEDED.items()}
        return user, {name: why for name, why in said.items() if why}

    async def _verdict(self, user: str, command: Sequence[str]) -> str:
        """Why the server would refuse it; empty when it would not. One that was renamed it does not even know."""
        try:
            said = str(await self._ask("ACL", "DRYRUN", user, *command))
        except NodeRefused as error:
            return str(error).partition(": ")[2]
        return "" if said == "OK" else said

    async def _clock(self) -> tuple[float, float]:
        """How far it is ahead of this host's, and the error of that; 0 when the user may not ask."""
        before = time.time()
        try:
            seconds, microseconds = await self._ask("TIME")
        except NodeRefused:
            return 0.0, float("inf")
        after = time.time()
        return seconds + microseconds / 1e6 - (before + after) / 2, (after - before) / 2


def users(said: Iterable[str]) -> Mapping[str, User]:
    """The answer to ACL LIST: of passwords, and whether one is needed, it is only kept what tells them apart."""
    known = {}
    for line in said:
        _, name, *words = line.split(" ")
        secret = sorted(word for word in words if word[:1] in "#>" or word == "nopass")
        rules = " ".join(word for word in words if word not in secret)
        known[name] = User(rules, hashlib.sha256(" ".join(secret).encode()).hexdigest())
    return known


def _version(info: Mapping[str, str]) -> str:
    """Valkey says which Redis it stands for, too."""
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}" if "redis_version" in info else ""
