"""What makes a group unsafe, judged by what its servers and the store say of themselves. Pure.

Only what can be established from outside is judged. What a server's configuration file says, which decides what it is
when it starts again, is not among it; see `UNSEEN`.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from rfmanager.operator import comparison
from rfmanager.operator.doctor_facts import Finding, GroupFacts, ServerFacts, Severity
from rfprotocol.topology.topology import Node

SETTINGS = (
    *comparison.COMPARED,
    "appendonly",
    "cluster-enabled",
    "masterauth",
    "min-replicas-max-lag",
    "min-replicas-to-write",
    "repl-backlog-size",
    "repl-diskless-sync",
    "repl-diskless-sync-delay",
    "replica-announce-ip",
    "replica-announce-port",
    "replica-ignore-disk-write-errors",
    "replica-priority",
    "replica-read-only",
    "save",
    "stop-writes-on-bgsave-error",
)
"""What is looked at, of Redis' configuration."""

NEEDED: Mapping[str, tuple[str, ...]] = {
    "replicaof": ("REPLICAOF", "NO", "ONE"),
    "client|pause": ("CLIENT", "PAUSE", "1", "WRITE"),
    "client|unpause": ("CLIENT", "UNPAUSE"),
    "multi": ("MULTI",),
    "exec": ("EXEC",),
    "config|set": ("CONFIG", "SET", "masterauth", "x"),
}
"""What managers send besides INFO, by the name that it has in an ACL rule, each in a form that Redis can judge."""

UNSEEN = (
    "Not visible from here, so look yourself: whether a server that is started again comes up as a master "
    "(its file has no 'replicaof'), and what starts it again; the files of ZooKeeper; the "
    "options of proxies, and those of managers that they do not report."
)

_SMALLEST_BACKLOG = 1 << 20
"""Bytes; Redis' default."""
_SHORTEST_DELAY = 2
"""Seconds before a full transfer. Redis counts whole ones, so that 1 may be none."""
_BUSY_THRESHOLD = 5000
"""Milliseconds; Redis' default."""
_CLOCK_TOLERANCE = 1.0
_TIMEOUT_TOLERANCE = 0.01


def examine(group: GroupFacts) -> list[Finding]:
    """All that is wrong with the group, the worst first."""
    findings = [
        *_of_the_store(group),
        *group.migration,
        *_of_the_managers(group),
        *_of_the_group(group),
        *_of_the_proxies(group),
    ]
    findings += [*_of_the_strangers(group), *_of_the_doubles(group), *comparison.differences(group)]
    for server in group.servers:
        if server.trouble:
            findings.append(_not_asked(server))
        else:
            findings += [*_of_the_disk(server), *_of_the_rights(server, group), *_of_the_settings(server, group)]
    order = list(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _not_asked(server: ServerFacts) -> Finding:
    why = "what cannot be looked at may be unsafe; managers that fare the same do not promote it"
    return Finding(Severity.UNSAFE, server.node, f"cannot be examined: {server.trouble}", why)


def _of_the_disk(server: ServerFacts) -> Iterator[Finding]:
    """See redis.c: writeCommandsDeniedByDiskError, and what processCommand does of it in a replica."""
    if not server.unsaved:
        return
    settings = server.settings or {}
    tolerated = settings.get("stop-writes-on-bgsave-error") == "no" and "append-only" not in server.unsaved
    what = f"could not write {server.unsaved} to its disk"
    if tolerated:
        why = "what it has on its disk is old: started again, it comes back with that"
        yield Finding(Severity.WARNING, server.node, what, why, _FREE_SPACE)
        return
    what += ", and refuses all writes (MISCONF)" if server.role == "master" else ": as a master it refuses all writes"
    why = "nobody is promoted in its place, as it is not dead"
    if settings.get("replica-ignore-disk-write-errors") == "no":
        why += "; and as a replica it aborts at the next write (replica-ignore-disk-write-errors no)"
    yield Finding(Severity.UNSAFE, server.node, what, why, _FREE_SPACE)


_FREE_SPACE = "free space on its disk, or see to its rights; BGSAVE on it shows whether that was all"


def _of_the_managers(group: GroupFacts) -> Iterator[Finding]:
    if group.too_few:
        why = "while too few report, a master that is lost is not replaced"
        line = "required_node_managers: N  (rfmanager: not more than there are, and the same for all)"
        yield Finding(Severity.UNSAFE, None, group.too_few, why, line)
    for what in group.disagreements:
        why = "which of them leads decides what is done"
        yield Finding(Severity.WARNING, None, what, why, "the same options for all managers")
    if group.paused:
        why = "nobody is promoted while they are, also when the master is lost"
        yield Finding(Severity.WARNING, None, f"the managers are paused {group.paused}", why, "rfmanager resume")
    if group.slowed_down:
        why = "a master that does die silently is replaced that much later"
        line = "probe_timeout: SECONDS  (rfmanager)"
        yield Finding(Severity.WARNING, None, f"changes of master are slowed down: {group.slowed_down}", why, line)


def _of_the_strangers(group: GroupFacts) -> Iterator[Finding]:
    for node, holding in group.strangers.items():
        why = "it is no replica and will not be one: a replica too few is left when one server is lost"
        yield Finding(Severity.UNSAFE, node, holding, why, "nodes: ... without it, if that is the wrong address")


def _of_the_doubles(group: GroupFacts) -> Iterator[Finding]:
    """As the managers see them, and as they were found here."""
    listed: defaultdict[str, set[Node]] = defaultdict(set)
    for run_id, nodes in group.doubles.items():
        listed[run_id].update(nodes)
    for server in group.servers:
        if server.run_id:
            listed[server.run_id].add(server.node)
    for names in listed.values():
        if len(names) > 1:
            first, *others = sorted(names)
            why = "it counts as several: a replica too few is left when one server is lost, and it cannot follow itself"
            line = "nodes: HOST:PORT,...  (rfmanager: the same name for a server everywhere)"
            for node in others:
                yield Finding(Severity.UNSAFE, node, f"is the same server as {first}", why, line)


def _of_the_store(group: GroupFacts) -> Iterator[Finding]:
    if group.store_trouble:
        why = "without it no master is replaced, and proxies hold writes when their leases have run out"
        yield Finding(Severity.UNSAFE, None, group.store_trouble, why)
        return
    asked, granted = group.asked_timeout, group.granted_timeout
    what = f"ZooKeeper grants sessions of {granted:g} s instead of {asked:g} s"
    if granted > asked + _TIMEOUT_TOLERANCE:
        # Not minSessionTimeout: proxies count on sessions of two ticks at least.
        why = "so long does a change of master wait for a proxy that is frozen or cut off"
        yield Finding(Severity.WARNING, None, what, why, f"tickTime={int(asked * 500)}  (zoo.cfg)")
    if granted < asked - _TIMEOUT_TOLERANCE:
        why = "a shorter silence than intended costs a manager its lead, and makes a proxy hold writes"
        yield Finding(Severity.WARNING, None, what, why, f"maxSessionTimeout={round(asked * 1000)}  (zoo.cfg)")


def _of_the_proxies(group: GroupFacts) -> Iterator[Finding]:
    why = "without role and info it cannot tell that a server was restarted empty; clients that say no AUTH speak as it"
    for name, problem in sorted(group.accounts.items()):
        line = "ACL SETUSER <its username> +role +info +select +client|id  (or its password, if that is refused)"
        yield Finding(Severity.UNSAFE, None, f"the own account of proxy {name}: {problem}", why, line)


def _of_the_group(group: GroupFacts) -> Iterator[Finding]:
    servers = group.servers
    barred = [server for server in servers if (server.settings or {}).get("replica-priority") == "0"]
    if not [server for server in servers if server not in barred and server.role != "master"]:
        why = "when the master is lost, there is nobody to promote"
        alone = "nodes: HOST:PORT,...  (rfmanager: name its replicas, too)"
        line = "replica-priority 100" if barred else "replicaof HOST PORT" if len(servers) > 1 else alone
        yield Finding(Severity.UNSAFE, None, "has no replica that may become the master", why, line)
    local = [server.node for server in servers if _is_local(server.node.host)]
    if len(local) < len(servers):
        for node in local:
            why = "replicas on other hosts are told to follow this address, which is their own host's"
            line = f"nodes: HOST:{node.port}  (rfmanager: an address that all hosts can reach)"
            yield Finding(Severity.UNSAFE, node, "has a loopback address, and others have not", why, line)
    yield from _of_the_clocks(group)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _of_the_clocks(group: GroupFacts) -> Iterator[Finding]:
    """Compared with the master, so that this host's own clock does not matter."""
    yardstick = group.yardstick
    if yardstick is None:
        return
    for server in group.servers:
        if server.trouble:
            continue
        apart = server.clock - yardstick.clock
        if abs(apart) - server.clock_error - yardstick.clock_error > _CLOCK_TOLERANCE:
            what = f"its clock is {abs(apart):.1f} s {'ahead of' if apart > 0 else 'behind'} {yardstick.node}'s"
            why = (
                "keys expire at a moment of the wall clock: as the master it lets them live that much shorter or longer"
            )
            yield Finding(Severity.WARNING, server.node, what, why, "NTP on its host, such as chrony")


_CONSEQUENCES: Mapping[str, tuple[Severity, str]] = {
    "replicaof": (Severity.UNSAFE, "the managers cannot promote it, and cannot make it follow another master"),
    "config|set": (Severity.UNSAFE, "it has no password to follow another master with (masterauth), and gets none"),
}
_NO_SWITCHOVER = (Severity.WARNING, "no planned switchover away from it is possible")


def _of_the_rights(server: ServerFacts, group: GroupFacts) -> Iterator[Finding]:
    rule = f"user {server.user}"
    if server.denied is None:
        why = "the user may not ask (ACL WHOAMI, ACL DRYRUN), or Redis is older than 7.0"
        yield Finding(
            Severity.WARNING, server.node, "its rights cannot be checked", why, f"{rule} +acl|whoami +acl|dryrun"
        )
        return
    passed_on = group.with_password and server.settings is not None and not server.settings.get("masterauth")
    for name, said in server.denied.items():
        if name == "config|set" and not passed_on:
            continue
        severity, why = _CONSEQUENCES.get(name, _NO_SWITCHOVER)
        command = NEEDED[name][0]
        line = f"{rule} +{name}" if "not found" not in said else f"remove: rename-command {command}"
        yield Finding(severity, server.node, f"refuses {name} to the managers: {said}", why, line)


def _of_the_settings(server: ServerFacts, group: GroupFacts) -> Iterator[Finding]:
    if server.settings is None:
        why = "the user may not read it, so that nothing in it was checked"
        line = f"user {server.user} +config|get"
        yield Finding(Severity.WARNING, server.node, "its configuration cannot be read", why, line)
        return
    for check in _CHECKS:
        yield from check(server, server.settings, group)


def _persistence(server: ServerFacts, settings: Mapping[str, str], group: GroupFacts) -> Iterable[Finding]:
    if settings.get("appendonly") != "no" or settings.get("save") != "":
        return
    why = "a master that is started again is empty, and a replica that reaches it before the managers do copies that"
    restarted = server.supervised not in ("", "no")
    severity = Severity.UNSAFE if restarted else Severity.WARNING
    by = f", and it is supervised ({server.supervised})" if restarted else ""
    line = "appendonly yes" + ("  (or no automatic restart: Restart=no)" if restarted else "")
    yield Finding(severity, server.node, f"keeps nothing on disk{by}", why, line)


def _transfer(server: ServerFacts, settings: Mapping[str, str], group: GroupFacts) -> Iterable[Finding]:
    delay = int(settings.get("repl-diskless-sync-delay", 0)) if settings.get("repl-diskless-sync") == "yes" else 0
    if delay < _SHORTEST_DELAY:
        why = "if it is started again without its data, replicas copy that before the managers have detached them"
        line = "repl-diskless-sync yes, repl-diskless-sync-delay 5"
        yield Finding(Severity.WARNING, server.node, "begins a full transfer to replicas at once", why, line)


def _backlog(server: ServerFacts, settings: Mapping[str, str], group: GroupFacts) -> Iterable[Finding]:
    size = int(settings.get("repl-backlog-size", _SMALLEST_BACKLOG))
    if size < _SMALLEST_BACKLOG:
        why = "a replica that missed more than that copies all data anew, and is no candidate until then"
        what = f"its replication backlog has {size} bytes only"
        yield Finding(Severity.WARNING, server.node, what, why, "repl-backlog-size 64mb")


def _enough_replicas(server: ServerFacts, settings: Mapping[str, str], group: GroupFacts) -> Iterable[Finding]:
    wanted, lag = (int(settings.get(f"min-replicas-{name}", 0)) for name in ("to-write", "max-lag"))
    if not wanted or not lag:
        return
    left = max(0, len(group.servers) - 2)
    what = f"as the master it refuses writes with fewer than {wanted} replicas"
    if wanted > left:
        why = f"after the loss of one server {left} are left: all writes are answered -NOREPLICAS"
        yield Finding(Severity.UNSAFE, server.node, what, why, f"min-replicas-to-write {min(left, wanted)}")
    else:
        why = "a new master has none until they follow it: writes wait, and after five seconds hear -NOREPLICAS"
        yield Finding(Severity.WARNING, server.node, what, why, "min-replicas-to-write 0")


def _read_only(server: ServerFacts, settings: Mapping[str, str], group: GroupFacts) -> Iterable[Finding]:
    if settings.get("replica-read-only") == "no":
        why = "what is written to it as a replica is on no other server, and sealing it does not stop that"
        yield Finding(Severity.UNSAFE, server.node, "accepts writes as a replica", why, "replica-read-only yes")


def _cluster(server: ServerFacts, settings: Mapping[str, str], group: GroupFacts) -> Iterable[Finding]:
    if settings.get("cluster-enabled") == "yes":
        why = "there it refuses REPLICAOF, so that no master can be changed"
        yield Finding(Severity.UNSAFE, server.node, "runs in cluster mode", why, "cluster-enabled no")


def _announced(server: ServerFacts, settings: Mapping[str, str], group: GroupFacts) -> Iterable[Finding]:
    host = settings.get("replica-announce-ip") or server.node.host
    port = int(settings.get("replica-announce-port") or 0) or server.node.port
    if (host, port) != (server.node.host, server.node.port):
        what = f"announces itself as {Node(host, port)}"
        why = "managers and proxies do not use that; tools that read INFO or ROLE of the master find another address"
        line = f"replica-announce-ip {server.node.host}, replica-announce-port {server.node.port}"
        yield Finding(Severity.NOTE, server.node, what, why, line)


def _busy(server: ServerFacts, settings: Mapping[str, str], group: GroupFacts) -> Iterable[Finding]:
    name = "busy-reply-threshold" if "busy-reply-threshold" in settings else "lua-time-limit"  # before Redis 7.0
    threshold = int(settings.get(name, _BUSY_THRESHOLD))  # milliseconds; 0: never
    if comparison.says_busy_in_time(threshold, group.silence):
        return
    after = f"only after {threshold / 1000:g} s" if threshold > 0 else "never"
    what = f"says {after} that it is busy with a script"
    why = f"managers take it for dead when it says nothing for {group.silence:g} s, and replace a master that is well"
    yield Finding(Severity.WARNING, server.node, what, why, f"{name} {_below(group.silence)}")


def _below(seconds: float) -> int:
    """Milliseconds, about three quarters of it, as a round number."""
    return max(1, int(seconds * 750) // 100 * 100)


_Check = Callable[[ServerFacts, Mapping[str, str], GroupFacts], Iterable[Finding]]
_CHECKS: tuple[_Check, ...] = (
    _persistence,
    _transfer,
    _backlog,
    _enough_replicas,
    _read_only,
    _cluster,
    _announced,
    _busy,
)
