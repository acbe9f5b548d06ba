"""In what the servers of a group differ from their master, so that a change of master would change it. Pure.

Redis replicates data and functions. Its configuration, its users and its version are each server's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from rfmanager.operator.doctor_facts import Finding, GroupFacts, ServerFacts, Severity

COMPARED: Mapping[str, str] = {
    "busy-reply-threshold": "as the master it says BUSY at another time in a long script",
    "client-output-buffer-limit": "as the master it closes slow clients, or replicas, at another point",
    "lua-time-limit": "as the master it says BUSY at another time in a long script",
    "maxclients": "as the master it refuses connections at another number",
    "maxmemory": "as the master it evicts, or refuses writes (OOM), at another size",
    "maxmemory-policy": "as the master it evicts other keys, or none and refuses writes (OOM)",
    "notify-keyspace-events": "as the master it publishes other events, or none, to those who listen for them",
    "timeout": "as the master it closes idle connections at another time",
}
"""Settings that should be alike, and what a change of master does if they are not."""

_FORMER, _LATTER = "lua-time-limit", "busy-reply-threshold"
"""Redis 7.0 and later know it by both names."""


def differences(group: GroupFacts) -> Iterator[Finding]:
    """Of each server that could be asked from the master, or else from the first."""
    master = group.yardstick
    if master is None:
        return
    for server in group.servers:
        if server is not master and not server.trouble:
            yield from _version(server, master)
            yield from _settings(server, master, group)
            yield from _users(server, master)
    yield from _announced(group)


def _version(server: ServerFacts, master: ServerFacts) -> Iterator[Finding]:
    if not server.version or not master.version or server.version == master.version:
        return
    why = "replicas may be unable to copy from a newer server, and it knows other commands: upgrade replicas first"
    what = f"runs {server.version}, {_title(master)} {master.version}"
    yield Finding(Severity.WARNING, server.node, what, why, "the same version on all, the master last")


def says_busy_in_time(milliseconds: int, silence: float) -> bool:
    """Whether a server says that a script keeps it busy before the managers take it for dead; 0: it never does."""
    return 0 < milliseconds < silence * 1000


def _settings(server: ServerFacts, master: ServerFacts, group: GroupFacts) -> Iterator[Finding]:
    own, its = server.settings or {}, master.settings or {}
    for name, why in COMPARED.items():
        if name not in own or name not in its or _alike(own[name]) == _alike(its[name]):
            continue
        if name == _FORMER and _LATTER in own and _LATTER in its:
            continue
        if name in (_FORMER, _LATTER):
            in_time = (says_busy_in_time(int(said[name]), group.silence) for said in (own, its))
            if not all(in_time):  # which is judged by itself
                continue
        what = f"{name} is {_shown(own[name])}, on {_title(master)} {_shown(its[name])}"
        yield Finding(Severity.WARNING, server.node, what, why, f"{name} {_shown(its[name])}  (on all alike)")


def _alike(value: str) -> str:
    """Replicas have two names in the output limits."""
    return value.replace("replica ", "slave ")


def _users(server: ServerFacts, master: ServerFacts) -> Iterator[Finding]:
    """By names, rules and whether the passwords are the same ones; those are never shown."""
    if server.users is None or master.users is None:
        unread = server if server.users is None else master
        why = "users are each server's own: one that the next master does not know is refused"
        yield Finding(Severity.NOTE, unread.node, "its users cannot be compared", why, f"user {unread.user} +acl|list")
        return
    line = "ACL SETUSER on each server, or the same aclfile for all"
    lacking = sorted(master.users.keys() - server.users.keys())
    additional = sorted(server.users.keys() - master.users.keys())
    if lacking:
        why = "when it becomes the master, these are refused"
        what = f"lacks users that {_title(master)} has: {', '.join(lacking)}"
        yield Finding(Severity.UNSAFE, server.node, what, why, line)
    if additional:
        why = "they are admitted on this server alone"
        what = f"has users that {_title(master)} lacks: {', '.join(additional)}"
        yield Finding(Severity.WARNING, server.node, what, why, line)
    for name in sorted(master.users.keys() & server.users.keys()):
        own, its = server.users[name], master.users[name]
        if own.passwords != its.passwords:
            why = "when it becomes the master, who logs in with the other password is refused"
            what = f"user {name} has other passwords than on {_title(master)}"
            yield Finding(Severity.UNSAFE, server.node, what, why, line)
        if own.rules != its.rules and _series(server.version) == _series(master.version):
            why = "when it becomes the master, the user may do other things than before"
            what = f"user {name} has the rules '{own.rules}', on {_title(master)} '{its.rules}'"
            yield Finding(Severity.WARNING, server.node, what, why, line)


def _announced(group: GroupFacts) -> Iterator[Finding]:
    """Of several that announce one address, tools that ask the master see one."""
    by_address: dict[tuple[str, str], ServerFacts] = {}
    for server in group.servers:
        settings = server.settings or {}
        host, port = settings.get("replica-announce-ip", ""), settings.get("replica-announce-port", "0")
        if not host:
            continue
        port = port if port not in ("", "0") else str(server.node.port)
        first = by_address.setdefault((host, port), server)
        if first is not server:
            what = f"announces the same address as {first.node}: {host} port {port}"
            why = "managers and proxies do not use that; tools that read INFO or ROLE of the master take both for one"
            line = f"replica-announce-ip {server.node.host}, replica-announce-port {server.node.port}"
            yield Finding(Severity.WARNING, server.node, what, why, line)


def _title(server: ServerFacts) -> str:
    return f"the master {server.node}" if server.role == "master" else str(server.node)


def _shown(value: str) -> str:
    return value or '""'


def _series(version: str) -> str:
    """`Redis 7.0` of `Redis 7.0.15`: other series write the same rules in other words."""
    return ".".join(re.split(r"\.", version)[:2])
