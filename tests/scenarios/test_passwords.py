"""Passwords that are changed while everything runs, in whatever order, and a failover in the middle of it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from bench.load import Load
from bench.seen import Result
from rfmanager.daemon import executor as executor_module
from rfmanager.daemon import login_keeper
from rfmanager.monitoring.redis_admin import Credentials
from rfprotocol.settings.log_limit import FIRST
from rfprotocol.topology.topology import ManagerReport, Node, Topology
from tests.scenarios.test_failover import CONNECTIONS, progress, stop
from tests.support.eventually import eventually
from tests.support.installation import Installation
from tests.support.managers import Manager, Site, site
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
    monkeypatch.setattr(login_keeper, "LOGIN_INTERVAL", 0.1)
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
    await place.report(
        one.daemon.name, refuses(replica.node, f"its link to {master.node} has been down for", "refuses its")
    )
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


# --- a whole installation, step by step as docs/passwords.md has it

DOCUMENT = (Path(__file__).parents[2] / "docs" / "passwords.md").read_text()


def documented() -> tuple[str, list[str]]:
    """The function at the head of the block, and the commands of each step."""
    block = DOCUMENT.partition("```sh\n")[2].partition("```")[0]
    head, *steps = block.strip().split("\n\n")
    assert [step.partition(".")[0] for step in steps] == [f"# {number}" for number in range(1, 8)]
    return head, steps


class Rotation:
    """An operator's shell, on a host on which everything runs."""

    def __init__(self, site: Installation, folder: Path) -> None:
        self._site = site
        self._head, self.steps = documented()
        self.files = {name: folder / f"password-{name}" for name in ("rfmanager", "rfproxy")}
        for file in self.files.values():
            file.write_text(OLD)
        for process in site.managers:
            process.argv += ["--password-file", str(self.files["rfmanager"])]
        for process in site.proxies.values():
            process.argv += ["--password-file", str(self.files["rfproxy"])]

    async def step(self, number: int) -> None:
        """One step, and what it says must have been done."""
        words = self.steps[number - 1]
        for name, file in self.files.items():
            words = words.replace(f"/etc/{name}/password", str(file))
        done = await asyncio.to_thread(self._run, words)
        assert "systemctl" not in words or done.startswith("reload")
        for line in done.splitlines():
            assert line == "OK" or line.startswith("reload "), done
        if "reload rfmanager" in done:
            await self._reload_managers()
        if "reload rfproxy" in done:
            await self._reload_proxies()

    def _run(self, words: str) -> str:
        alive = " ".join(str(server.node) for server in self._site.group.servers if server.alive)
        script = f"set -eu\nSERVERS='{alive}' OLD='{OLD}' NEW='{NEW}'\nsystemctl() {{ echo \"$@\"; }}\n"
        done = subprocess.run(
            ["sh", "-c", f"{script}{self._head}\n{words}"], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    async def _reload_managers(self) -> None:
        for manager in self._site.managers:
            before = self._site.times_said(manager, "server accepts new connections")
            manager.signal(signal.SIGHUP)
            alive = sum(server.alive for server in self._site.group.servers)
            await self._site.said(manager, "server accepts new connections", before + alive)

    async def _reload_proxies(self) -> None:
        for port, proxy in self._site.proxies.items():
            before = self._site.times_said(proxy, '"retiring"')
            proxy.signal(signal.SIGHUP)
            await self._site.said(proxy, '"retiring"', before + 1)
            async with aioredis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as newcomer:  # of a new worker
                assert await newcomer.set("newcomer", "1")


@pytest.fixture
async def installed(
    group: RedisGroup, zookeeper_hosts: str, tmp_path: Path
) -> AsyncIterator[tuple[Installation, Rotation]]:
    """Three managers and a proxy that know the former password."""
    site = Installation(group, zookeeper_hosts, tmp_path)
    rotation = Rotation(site, tmp_path)
    async with site:
        yield site, rotation


async def started(site: Installation) -> Load:
    load = Load(port=site.ports[0], connections=CONNECTIONS, rate=400.0)
    await asyncio.to_thread(load.start)
    await progress(load)
    return load


async def switch_over(site: Installation) -> None:
    await site.serving(lambda topology: len(topology.replicas) == 2)
    done = await site.command("failover")
    assert done.returncode == 0, done.stdout + done.stderr


def check(site: Installation, result: Result, kills: int) -> None:
    """Nothing failed but what a killed master costs, nothing got lost, and no log tells a password."""
    assert {error for _, error in result.errors} <= ({"UNCERTAIN"} if kills else set())
    assert not [key for key in result.errors if key[0] == "GET"]
    assert sum(result.errors.values()) <= kills * CONNECTIONS
    assert result.ledger is not None
    assert (result.ledger.lost, result.ledger.doubled) == (0, 0)
    for process in site.processes:
        assert process.log is not None
        assert "-secret" not in process.log.read_text()


async def test_rotation__step_by_step(installed: tuple[Installation, Rotation]) -> None:
    site, rotation = installed
    load = await started(site)
    await rotation.step(1)
    await switch_over(site)
    await rotation.step(2)
    before = await site.serving(lambda topology: len(topology.replicas) == 2)
    killed = site.server_of(before)
    killed.kill()
    await site.serving(lambda topology: topology.epoch > before.epoch and len(topology.replicas) == 1)
    await progress(load)
    await rotation.step(3)
    await rotation.step(4)
    killed.restart()  # with the former password, and no other
    await site.serving(lambda topology: killed.node in topology.replicas)
    await progress(load)
    await rotation.step(5)
    await switch_over(site)
    await rotation.step(6)
    for server in site.group.servers:
        server.options |= {"requirepass": NEW, "masterauth": NEW}
    for server in site.group.servers:  # all who are connected have to come anew, one server after the other
        server.command("CLIENT", "KILL", "TYPE", "replica")
    await eventually(lambda: sum(map(is_linked, site.group.servers)) == 2)
    await switch_over(site)
    await rotation.step(7)
    await progress(load)
    check(site, await stop(load), kills=1)
    assert [masterauth(server) for server in site.group.servers] == [NEW] * 3
    said = await site.command("status")
    assert "trouble" not in said.stdout


@pytest.mark.parametrize("order", [(2, 3, 1, 5, 6), (3, 2, 1, 5, 6)], ids=["managers first", "proxies first"])
async def test_rotation__programs_first__master_killed_while_no_server_knows_the_new_one(
    installed: tuple[Installation, Rotation], order: tuple[int, ...]
) -> None:
    site, rotation = installed
    load = await started(site)
    for number in order[:2]:
        await rotation.step(number)
        await switch_over(site)
    before = await site.serving(lambda topology: len(topology.replicas) == 2)
    killed = site.server_of(before)
    killed.kill()
    await site.serving(lambda topology: topology.epoch > before.epoch and len(topology.replicas) == 1)
    killed.restart()
    await site.serving(lambda topology: killed.node in topology.replicas)
    await progress(load)
    for number in order[2:]:
        await rotation.step(number)
        await switch_over(site)
    for server in site.group.servers:
        server.options |= {"requirepass": NEW, "masterauth": NEW}
    check(site, await stop(load), kills=1)
    assert [masterauth(server) for server in site.group.servers] == [NEW] * 3


async def test_rotation__servers_first_in_one_go__master_killed__files_are_read_again(
    installed: tuple[Installation, Rotation],
) -> None:
    site, rotation = installed
    load = await started(site)
    for file in rotation.files.values():
        file.write_text(NEW)
    for server in site.group.servers:
        set_password(server, NEW)
        await progress(load)
    before = await site.serving(lambda topology: len(topology.replicas) == 2)
    killed = site.server_of(before)
    killed.kill()
    await site.serving(lambda topology: topology.epoch > before.epoch and len(topology.replicas) == 1)
    await progress(load)
    killed.restart()
    await site.serving(lambda topology: killed.node in topology.replicas)
    await switch_over(site)
    check(site, await stop(load), kills=1)
    assert [masterauth(server) for server in site.group.servers] == [NEW] * 3


async def test_rotation__nobody_told_the_managers__failover_happens_and_status_says_what_is_wrong(
    installed: tuple[Installation, Rotation],
) -> None:
    site, _ = installed
    for server in site.group.servers:
        set_password(server, NEW)
    before = await site.serving(lambda topology: len(topology.replicas) == 2)
    site.server_of(before).kill()
    await site.serving(lambda topology: topology.epoch > before.epoch and len(topology.replicas) == 1)
    text = ""
    while "refuses new connections of the managers" not in text:
        text = (await site.command("status")).stdout
    assert "WRONGPASS" in text
    assert "-secret" not in text


async def test_refused_command__master_killed__status_has_its_words_and_the_log_is_not_flooded(
    installed: tuple[Installation, Rotation],
) -> None:
    site, _ = installed
    before = await site.serving(lambda topology: len(topology.replicas) == 2)
    for node in before.replicas:
        site.group[node].command("ACL", "SETUSER", "default", "-replicaof")
    site.server_of(before).kill()
    text = ""
    while text.count("cannot be detached from its master: answered NOPERM") < 2 or "next step waits" not in text:
        text = (await site.command("status")).stdout
    primary = await site.primary()
    await site.said(primary, '"repeated"')  # the end of a window
    lines = [line for line in site.log(primary) if line["event"] == "cannot detach a server from its master"]
    told = [line for line in lines if "repeated" not in line]
    assert sum(line["repeated"] for line in lines if "repeated" in line) > len(told)
    assert len(told) <= 2 * 2 * FIRST
    for node in before.replicas:
        site.group[node].command("ACL", "SETUSER", "default", "+replicaof")
    after = await site.serving(lambda topology: topology.epoch > before.epoch)
    while f"{after.master}: cannot" in text:
        text = (await site.command("status")).stdout
