"""Passwords that are changed while everything runs, in whatever order, and a failover in the middle of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from rfmanager import daemon as daemon_module
from rfmanager import executor as executor_module
from rfmanager.redis_admin import Credentials
from rfprotocol.topology import ManagerReport, Node, Topology
from tests.manager.group import Manager, Site, site
from tests.support.eventually import eventually
from tests.support.redis import RedisGroup, RedisServer

OLD, NEW = "old-secret", "new-secret"


@pytest.fixture
def group() -> Iterator[RedisGroup]:
    with RedisGroup(3, requirepass=OLD, masterauth=OLD) as group:
        yield group


@pytest.fixture
async def place(group: RedisGroup) -> AsyncIterator[Site]:
    async with site(group) as place:
        yield place


def add_password(server: RedisServer, password: str) -> None:
    """The server accepts another one, too."""
    server.command("ACL", "SETUSER", "default", f">{password}")


def set_password(server: RedisServer, password: str) -> None:
    """The only one, in one go; whoever is connected stays so."""
    with server.client() as client:
        client.config_set("masterauth", password)
        client.config_set("requirepass", password)
    server.options |= {"requirepass": password, "masterauth": password}


def masterauth(server: RedisServer) -> str:
    with server.client() as client:
        return str(client.config_get("masterauth")["masterauth"])


def cut_links(master: RedisServer) -> None:
    """Replicas have to log in anew."""
    master.command("CLIENT", "KILL", "TYPE", "replica")


def is_linked(server: RedisServer) -> bool:
    return bool(server.info().get("master_link_status") == "up")


def password_file(folder: Path, password: str) -> str:
    path = folder / "password"
    path.write_text(f"{password}\n")
    return str(path)


async def manager(place: Site, path: str, password: str = OLD) -> Manager:
    return await place.manager(credentials=Credentials(password=password), password_file=path)


async def fail_over(place: Site, before: Topology) -> Topology:
    """Kill the master, and return the topology in which the survivor follows the next one."""
    assert before.master is not None
    place.group[before.master].kill()
    return await place.until_serving(1, other_than=before.master)


def refuses(node: Node, *words: str) -> Callable[[ManagerReport], bool]:
    """A report in which this server refuses something, in these words."""
    return lambda said: any(report.node == node and all(w in report.refusal for w in words) for report in said.nodes)


# --- servers first: the managers' file has the former password


@pytest.mark.parametrize("switchovers", [0, 2], ids=["no command was sent before", "commands were sent before"])
async def test_servers_first__master_killed__fails_over_and_masterauth_is_left_alone(
    place: Site, tmp_path: Path, switchovers: int
) -> None:
    await manager(place, password_file(tmp_path, OLD))
    topology = await place.until_serving(2)
    for _ in range(switchovers):
        await place.ask(None)
        topology = await place.until_serving(2, other_than=topology.master)
    for server in place.group.servers:
        set_password(server, NEW)
    topology = await fail_over(place, topology)
    (replica,) = (place.group[node] for node in topology.replicas)
    assert masterauth(replica) == NEW
    assert is_linked(replica)


async def test_servers_first__file_written_later__is_read_without_being_told(place: Site, tmp_path: Path) -> None:
    path = password_file(tmp_path, OLD)
    one = await manager(place, path)
    topology = await place.until_serving(2)
    for server in place.group.servers:
        set_password(server, NEW)
    password_file(tmp_path, NEW)
    for server in place.group.servers:  # every connection that stands
        server.command("CLIENT", "KILL", "TYPE", "normal")
    await place.report(one.daemon.name, lambda said: all(report.condition == "ok" for report in said.nodes))
    topology = await fail_over(place, topology)
    assert topology.replicas


async def test_nobody_knows_the_password__report_says_so_before_and_while_the_master_is_down(
    place: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "LOGIN_INTERVAL", 0.1)
    one = await manager(place, password_file(tmp_path, OLD))
    topology = await place.until_serving(2)
    first = place.group.replicas[0]
    set_password(first, NEW)
    await place.report(one.daemon.name, refuses(first.node, "refuses new connections", "WRONGPASS"))
    for server in place.group.servers:
        if server is not first:
            set_password(server, NEW)
        server.command("CLIENT", "KILL", "TYPE", "normal")
    await place.report(one.daemon.name, lambda said: all(report.condition == "wrongpass" for report in said.nodes))
    place.group.master.kill()
    said = await place.report(one.daemon.name, lambda said: "no server can be promoted" in said.waits_for)
    for report in said.nodes:
        if report.node != topology.master:
            assert report.condition == "wrongpass"
            assert NEW not in report.refusal + said.waits_for
            assert OLD not in report.refusal + said.waits_for
    password_file(tmp_path, NEW)
    await place.until_serving(1, other_than=topology.master)
    await place.report(one.daemon.name, lambda said: not said.waits_for and not any(r.refusal for r in said.nodes))


# --- managers first: servers have the former password


async def test_managers_first__master_killed__former_password_still_serves(place: Site, tmp_path: Path) -> None:
    path = password_file(tmp_path, OLD)
    one = await manager(place, path)
    topology = await place.until_serving(2)
    password_file(tmp_path, NEW)
    one.daemon.reload()
    for server in place.group.servers:
        server.command("CLIENT", "KILL", "TYPE", "normal")
    topology = await fail_over(place, topology)
    (replica,) = (place.group[node] for node in topology.replicas)
    assert masterauth(replica) == OLD
    for server in place.group.servers:
        if server.alive:
            set_password(server, NEW)
            server.command("CLIENT", "KILL", "TYPE", "normal")
    await place.report(one.daemon.name, lambda said: all(r.condition == "ok" for r in said.nodes if r.available))
    assert topology.master is not None
    place.group[topology.master].kill()
    await place.until_serving(0, other_than=topology.master)


# --- masterauth


async def test_masterauth_stale__link_cut__managers_set_what_the_master_accepts(
    place: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_module, "LINK_DOWN", 0.1)
    await manager(place, password_file(tmp_path, OLD))
    await place.until_serving(2)
    replica = place.group.replicas[0]
    replica.command("CONFIG", "SET", "masterauth", "stale")
    cut_links(place.group.master)
    await place.until(lambda topology: replica.node not in topology.replicas)
    await place.until_serving(2)
    assert masterauth(replica) == OLD


async def test_masterauth_stale__managers_password_refused__is_not_written_and_the_reason_is_told(
    place: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_module, "LINK_DOWN", 0.1)
    monkeypatch.setattr(executor_module, "MEND_EVERY", 0.1)
    one = await manager(place, password_file(tmp_path, OLD))
    await place.until_serving(2)
    master, replica = place.group.master, place.group.replicas[0]
    replica.command("CONFIG", "SET", "masterauth", "stale")
    set_password(master, NEW)
    cut_links(master)
    await place.report(one.daemon.name, refuses(replica.node, f"its link to {master.node} stays down", "refuses its"))
    assert masterauth(replica) == "stale"
    password_file(tmp_path, NEW)
    await place.until_serving(2)
    assert masterauth(replica) == NEW
    await place.report(one.daemon.name, lambda said: not any(report.refusal for report in said.nodes))


async def test_masterauth_of_the_site__master_accepts_it__is_left_alone(place: Site, tmp_path: Path) -> None:
    await manager(place, password_file(tmp_path, OLD))
    before = await place.until_serving(2)
    for server in place.group.servers:
        server.command("ACL", "SETUSER", "copies", "on", ">own", "+psync", "+replconf", "+ping")
        server.command("CONFIG", "SET", "masteruser", "copies")
        server.command("CONFIG", "SET", "masterauth", "own")
    await place.ask(None)
    await place.until_serving(2, other_than=before.master)
    assert [masterauth(server) for server in place.group.servers] == ["own"] * 3


async def test_masterauth_of_the_site__may_not_copy__the_managers_set_theirs(
    place: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_module, "LINK_DOWN", 0.1)
    monkeypatch.setattr(executor_module, "MEND_EVERY", 0.1)
    await manager(place, password_file(tmp_path, OLD))
    await place.until_serving(2)
    replica = place.group.replicas[0]
    place.group.master.command("ACL", "SETUSER", "copies", "on", ">own", "+ping")
    replica.command("CONFIG", "SET", "masteruser", "copies")
    replica.command("CONFIG", "SET", "masterauth", "own")
    cut_links(place.group.master)
    await place.until(lambda topology: replica.node not in topology.replicas)
    await place.until_serving(2)
    assert masterauth(replica) == OLD


async def test_masterauth__new_at_the_servers__switchover_with_both_valid_keeps_links(
    place: Site, tmp_path: Path
) -> None:
    one = await manager(place, password_file(tmp_path, OLD))
    before = await place.until_serving(2)
    for server in place.group.servers:
        add_password(server, NEW)
        server.command("CONFIG", "SET", "masterauth", NEW)
    password_file(tmp_path, NEW)
    one.daemon.reload()
    await place.ask(None)
    await place.until_serving(2, other_than=before.master)
    for server in place.group.servers:
        server.command("ACL", "SETUSER", "default", f"<{OLD}")
        server.options["requirepass"] = NEW
        server.command("CLIENT", "KILL", "TYPE", "replica")
    await eventually(lambda: sum(map(is_linked, place.group.servers)) == 2)
