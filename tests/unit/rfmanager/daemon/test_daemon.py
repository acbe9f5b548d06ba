"""Managers over real Redis servers: what operators and clients get from them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

import pytest
import redis
import structlog
from structlog.testing import capture_logs

from rfmanager.daemon import daemon, server_watch
from rfmanager.daemon.address_record import AddressRecord
from rfmanager.daemon.daemon import Settings
from rfmanager.daemon.leadership import State
from rfmanager.decision.plan import Policy
from rfmanager.evidence.agreement import Rule, Strategy
from rfmanager.monitoring.failure_detector import Limits, Verdict
from rfmanager.monitoring.prober import Prober
from rfmanager.settings import ManagerConfig, with_gems_patience
from rfprotocol.errors import ManagerFailed, NodeUnreachable, StoreError
from rfprotocol.network.resolver import Resolver
from rfprotocol.store.interface import Change, Delete, Fence, Put
from rfprotocol.store.memory import MemStore
from rfprotocol.topology.records import Occupation, Outcome, ProxyRecord, Receipt
from rfprotocol.topology.topology import Kind, ManagerReport, Node, NodeReport, Phase, Topology
from tests.support.eventually import eventually
from tests.support.managers import PATHS, Site, site
from tests.support.names import LookUps
from tests.support.redis import RedisGroup, RedisServer


@pytest.fixture
async def place(redis_group: RedisGroup) -> AsyncIterator[Site]:
    async with site(redis_group) as place:
        yield place


def write(server: RedisServer, keys: int) -> None:
    """Write, and see to it that every replica has it: what a replica never got cannot survive its master."""
    with server.client() as client:
        for key in range(keys):
            client.set(f"key{key}", key)
        client.wait(2, 5000)


def size(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.dbsize())


async def test_the_roles_of_running_servers_are_found_and_published(place: Site) -> None:
    await place.manager()
    topology = await place.until_serving(2)
    assert topology.epoch == 1
    assert topology.master == place.group.master.node
    assert set(topology.replicas) == {server.node for server in place.group.replicas}
    assert topology.run_id == place.group.master.info("server")["run_id"]


async def test_first_start__a_server_is_down__waits_for_an_operator(place: Site) -> None:
    place.group.servers[2].kill()
    await place.manager()
    report = await place.report("manager0", lambda report: bool(report.waits_for))
    assert f"waiting for {place.group.servers[2].node}" in report.waits_for
    assert (await place.ask(place.group.master.node)).outcome is Outcome.DONE
    topology = await place.until_serving(1)
    assert topology.unavailable == (place.group.servers[2].node,)


async def test_a_killed_master_is_replaced_again_and_again_and_becomes_a_replica(place: Site) -> None:
    write(place.group.master, 100)
    await place.manager()
    topology = await place.until_serving(2)
    for _ in range(2):
        assert topology.master is not None
        killed = place.group[topology.master]
        killed.kill()
        topology = await place.until_serving(1, other_than=killed.node)
        assert topology.master is not None
        assert size(place.group[topology.master]) == 100
        killed.restart()
        topology = await place.until_serving(2, other_than=killed.node)
        assert killed.info()["role"] == "slave"
        assert size(killed) == 100
    receipts = await place.receipts()
    assert [receipt.epoch for receipt in receipts] == [3, 5]
    steps, times = zip(*receipts[0].steps, strict=True)
    assert steps == ("noticed", "agreed", "fenced", "acknowledged", "sealed", "chosen", "promoted", "published")
    assert sorted(times) == list(times)
    assert receipts[0].offsets


async def test_a_frozen_master_is_replaced_and_returns_as_a_replica(place: Site) -> None:
    await place.manager(limits=Limits(probe_timeout=0.2))
    await place.until_serving(2)
    frozen = place.group.master
    frozen.freeze()
    topology = await place.until_serving(1, other_than=frozen.node)
    assert frozen.node in topology.unavailable
    assert "timeout" in (await place.receipts())[0].cause
    frozen.thaw()
    topology = await place.until_serving(2)
    assert frozen.node in topology.replicas
    assert frozen.info()["role"] == "slave"


async def test_daemon__a_replica_whose_link_stays_down__is_warned_of(
    place: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rfmanager.monitoring.failure_detector.UNLINKED", 0.3)
    monkeypatch.setattr(server_watch, "UNLINKED", 0.3)
    with capture_logs() as logs:
        await place.manager()
        await place.until_serving(2)
        place.group.master.command("ACL", "SETUSER", "default", "-psync", "-sync")
        place.group.master.command("CLIENT", "KILL", "TYPE", "replica")
        said = "replica has had no link to its master for 0.3 s"
        await eventually(lambda: len({line["node"] for line in logs if line["event"] == said}) == 2)
    assert {line["log_level"] for line in logs if line["event"] == said} == {"warning"}


async def test_daemon__managers_that_disagree_or_are_too_few__are_named_once_and_when_it_is_over(place: Site) -> None:
    with capture_logs() as logs:
        await place.manager(rule=Rule(required=2))
        few = "1 of 2 required managers report: nobody is promoted; start the others"
        await eventually(lambda: any(line["event"] == few for line in logs))
        other = await place.manager(rule=Rule(Strategy.SINGLE, required=2))
        differ = "the managers have different values of --node-strategy: majority (manager0); single (manager1)"
        await eventually(lambda: any(line["event"] == differ for line in logs))
        await place.until_serving(2)
        assert [line["what"] for line in logs if line["event"] == "no longer so"] == [few]
        await other.stop()
        await eventually(lambda: sum(line["event"] == few for line in logs) == 2)
    assert sum(line["event"] == differ for line in logs) == 1


QUICK = Limits(probe_interval=0.05, probe_timeout=0.2, busy_patience=1.5)


async def busy(place: Site, server: RedisServer) -> None:
    """A proxy says what keeps the server from answering."""
    topology = await place.topology()
    record = ProxyRecord(topology.epoch if topology else 0, busy={str(server.node): Occupation("FLUSHALL", 0.3)})
    await place.store.announce(PATHS.proxy("proxy"), record.encode())


def waits_for(node: Node) -> Callable[[ManagerReport], bool]:
    """A report that says: silent, and excused."""
    return lambda report: any(said.node == node and said.condition == "silent" for said in report.nodes)


async def test_daemon__a_busy_master__is_left_in_peace_by_all(place: Site) -> None:
    managers = [await place.manager(limits=QUICK) for _ in range(2)]
    before = await place.until_serving(2)
    place.group.master.freeze()
    await busy(place, place.group.master)
    for manager in managers:  # the standby, too, comes to its own verdict
        report = await place.report(manager.daemon.name, waits_for(place.group.master.node))
        said = next(said for said in report.nodes if said.node == place.group.master.node)
        assert (said.available, said.busy_with, said.said_by) == (True, "FLUSHALL", "proxy")
    place.group.master.thaw()
    for manager in managers:
        await place.report(manager.daemon.name, lambda report: all(said.condition == "ok" for said in report.nodes))
    after = await place.topology()
    assert after is not None
    assert (after.epoch, after.master) == (before.epoch, before.master)
    assert await place.receipts() == []


async def test_daemon__a_master_busy_for_too_long__is_replaced_once(place: Site) -> None:
    await place.manager(limits=QUICK)
    before = await place.until_serving(2)
    place.group.master.freeze()
    await busy(place, place.group.master)
    fenced = await place.until(lambda topology: topology.phase is Phase.FENCING)
    await place.acknowledge(fenced.epoch)
    after = await place.until_serving(1, other_than=place.group.master.node)
    assert after.epoch == before.epoch + 2
    [receipt] = await place.receipts()
    assert receipt.cause.endswith("busy with FLUSHALL for longer than --busy-patience")
    steps = dict(receipt.steps)
    assert steps["agreed"] - steps["noticed"] >= QUICK.busy_patience - QUICK.probe_timeout


async def test_daemon__a_busy_master_that_is_killed__is_replaced_at_once(place: Site) -> None:
    await place.manager(limits=replace(QUICK, busy_patience=3600.0))
    await place.until_serving(2)
    place.group.master.freeze()
    await busy(place, place.group.master)
    await place.report("manager0", waits_for(place.group.master.node))
    place.group.master.kill()
    fenced = await place.until(lambda topology: topology.phase is Phase.FENCING)
    await place.acknowledge(fenced.epoch)
    await place.until_serving(1, other_than=place.group.master.node)


async def test_daemon__a_probe_that_may_take_as_long_as_the_gems__does_not_hold_up_its_report(place: Site) -> None:
    patient, _ = with_gems_patience(ManagerConfig())
    manager = await place.manager(limits=patient.limits)
    await place.until_serving(2)
    replica = place.group.servers[2]
    replica.freeze()
    detector = manager.daemon._servers.probers[replica.node].detector
    await eventually(lambda: detector.silent_since is not None)
    since, before = detector.silent_since, await place.report("manager0", lambda report: True)
    later = await place.report("manager0", lambda report: report.sequence >= before.sequence + 2)
    assert (detector.silent_since, detector.verdict) == (since, Verdict.AVAILABLE)
    assert all(said.available for said in later.nodes)


async def test_daemon__a_false_alarm__slows_down_the_next_primary_too(place: Site) -> None:
    limits = replace(QUICK, probe_timeout=0.3)
    first = await place.manager(limits=limits)
    await place.until_serving(2)
    place.group.master.freeze()
    topology = await place.until_serving(1, other_than=place.group.master.node)
    place.group.master.thaw()
    noted = asyncio.Event()
    place.store.watch(PATHS.history, noted.set)
    while not (await place.receipts())[0].false_alarm:
        await noted.wait()
        noted.clear()
    await place.until_serving(2, other_than=place.group.master.node)

    second = await place.manager(limits=limits)
    await first.stop()
    await eventually(lambda: second.daemon.tenure.state is State.PRIMARY)
    assert topology.master is not None
    stalled = place.group[topology.master]
    stalled.freeze()
    await eventually(lambda: "is given 1.8 s instead of 0.9 s: 1 false alarm" in second.daemon._said)
    stalled.thaw()
    await place.report(second.daemon.name, lambda report: all(said.condition == "ok" for said in report.nodes))
    after = await place.topology()
    assert after is not None
    assert (after.phase, after.master) == (Phase.SERVING, topology.master)


async def test_a_master_that_restarts_empty_never_serves_and_gets_the_data_back(place: Site) -> None:
    write(place.group.master, 100)
    await place.manager()
    await place.until_serving(2)
    place.group.master.restart()
    topology = await place.until_serving(2, other_than=place.group.master.node)
    assert topology.master is not None
    assert size(place.group[topology.master]) == 100
    assert size(place.group.master) == 100


async def test_nothing_is_promoted_before_the_proxies_have_stopped_writing(place: Site) -> None:
    await place.acknowledge(0)
    await place.manager()
    await place.until_serving(2)
    await place.acknowledge(1)
    place.group.master.kill()
    fenced = await place.until(lambda topology: topology.phase is Phase.FENCING)
    assert {server.info()["role"] for server in place.group.replicas} == {"slave"}
    assert set(fenced.replicas) == {server.node for server in place.group.replicas}
    await place.acknowledge(fenced.epoch)
    topology = await place.until_serving(1)
    assert topology.epoch == fenced.epoch + 1
    changed = asyncio.Event()
    place.store.watch(PATHS.history, changed.set)
    await place.acknowledge(topology.epoch)
    await changed.wait()
    [receipt] = await place.receipts()
    assert receipt.proxies["proxy"]["epoch"] == topology.epoch
    steps = dict(receipt.steps)
    assert steps["fenced"] <= receipt.acknowledged["proxy"] <= steps["acknowledged"]


@pytest.fixture
def pair() -> Iterator[RedisGroup]:
    with RedisGroup(2) as group:
        yield group


@pytest.mark.parametrize("to_any", [True, False])
async def test_a_switchover_keeps_every_write_even_of_clients_that_know_no_proxy(
    pair: RedisGroup, to_any: bool
) -> None:
    async with site(pair) as place:
        await place.manager(policy=Policy(catch_up_timeout=30.0))  # the writer leaves the others little time
        await place.until_serving(1)
        acknowledged = 0
        target = pair.replicas[0]

        def writes() -> int:
            with pair.master.client() as client:
                for done in range(1_000_000):
                    try:
                        client.incr("counter")
                    except redis.RedisError:
                        return done
            raise AssertionError("writes were never refused")

        writer = asyncio.create_task(asyncio.to_thread(writes))
        receipt = await place.ask(None if to_any else target.node)
        assert (receipt.kind, receipt.outcome) == (Kind.SWITCHOVER, Outcome.DONE), receipt.cause
        acknowledged = await writer
        assert [name for name, _ in receipt.steps] == [
            "noticed", "draining", "acknowledged", "caught up", "promoted", "demoted", "published",
        ]  # fmt: skip
        topology = await place.until_serving(1)
        assert topology.master == target.node
        with target.client() as client:
            assert int(client.get("counter") or 0) == acknowledged


async def test_a_switchover_to_a_replica_that_does_not_catch_up_is_given_up_and_writes_go_on(place: Site) -> None:
    target = place.group.replicas[0]
    await place.manager(at={"after-drain": target.freeze}, limits=Limits(probe_timeout=5.0))
    await place.until_serving(2)
    receipt = await place.ask(target.node)
    target.thaw()
    assert receipt.outcome is Outcome.ABORTED
    assert f"{target.node} did not catch up" in receipt.cause
    topology = await place.until_serving(2)
    assert topology.master == place.group.master.node
    write(place.group.master, 1)


async def test_a_switchover_to_the_master_itself_is_refused(place: Site) -> None:
    await place.manager()
    await place.until_serving(2)
    receipt = await place.ask(place.group.master.node)
    assert receipt.outcome is Outcome.REFUSED
    assert "is the master already" in receipt.cause


@pytest.mark.parametrize(
    "point", ["after-fence", "after-seal", "after-mark", "after-promote", "before-publish", "after-publish"]
)
async def test_another_manager_finishes_a_failover_in_which_the_primary_dies(place: Site, point: str) -> None:
    write(place.group.master, 100)
    first = await place.manager(dies_at=point)
    await place.until_serving(2)
    await place.manager()
    place.group.master.kill()
    await first.bury()
    topology = await place.until_serving(1, other_than=place.group.master.node)
    assert topology.master is not None
    assert size(place.group[topology.master]) == 100
    assert len(await place.receipts()) == 1


@pytest.mark.parametrize("point", ["after-drain", "after-catch-up", "after-promote", "after-demote", "before-publish"])
async def test_another_manager_finishes_a_switchover_in_which_the_primary_dies(place: Site, point: str) -> None:
    write(place.group.master, 100)
    first = await place.manager(dies_at=point)
    await place.until_serving(2)
    await place.manager()
    target = place.group.replicas[0].node
    asked = asyncio.create_task(place.ask(target))
    await first.bury()
    receipt = await asked
    assert (receipt.outcome, receipt.master) == (Outcome.DONE, target)
    topology = await place.until_serving(2)
    assert topology.master == target
    assert size(place.group[target]) == 100


@pytest.mark.parametrize("point", ["after-promote", "after-publish"])
async def test_a_new_master_that_dies_before_the_others_follow_it_is_replaced_by_one_of_them(
    place: Site, point: str
) -> None:
    write(place.group.master, 50)
    killed = [place.group.master]

    def kill() -> None:
        if len(killed) == 1:
            killed.append(next(server for server in place.group.replicas if server.info()["role"] == "master"))
            killed[1].kill()

    await place.manager(at={point: kill})
    await place.until_serving(2)
    place.group.master.kill()
    topology = await place.until(lambda topology: topology.master not in (None, *(server.node for server in killed)))
    assert topology.master is not None
    assert size(place.group[topology.master]) == 50


async def test_a_chosen_server_that_restarts_empty_is_not_published_and_no_data_is_lost(place: Site) -> None:
    write(place.group.master, 50)
    restarted: list[RedisServer] = []

    def restart() -> None:
        if not restarted:
            entry = place.tree.get(PATHS.nodes)
            assert entry is not None
            topology = Topology.decode(entry.data)
            assert topology.change is not None
            assert topology.change.target is not None
            restarted.append(place.group[topology.change.target])
            restarted[0].restart()

    await place.manager(at={"after-mark": restart})
    await place.until_serving(2)
    place.group.master.kill()
    topology = await place.until_serving(1, other_than=place.group.master.node)
    assert topology.master not in (None, restarted[0].node)
    assert [size(server) for server in place.group.replicas] == [50, 50]


async def test_a_successor_takes_the_server_that_was_promoted_as_it_is_and_the_others_resume(place: Site) -> None:
    write(place.group.master, 50)
    history = place.group.master.info("replication")["master_replid"]
    first = await place.manager(dies_at="after-promote")
    await place.until_serving(2)
    other = await place.manager()
    await place.report("manager1", lambda report: len(report.nodes) == 3)
    place.group.master.kill()
    await first.bury()
    topology = await place.until_serving(1, other_than=place.group.master.node)
    assert topology.master is not None
    assert other.daemon.tenure.fence is not None
    master = place.group[topology.master]
    assert master.info("replication")["master_replid2"] == history, "it was promoted once"
    assert master.info("stats")["sync_full"] == 0


async def test_a_failover_goes_on_where_the_record_was_lost_and_the_receipts_were_not(place: Site) -> None:
    for epoch in (2, 3, 4):
        old = Receipt(epoch, Kind.FAILOVER, Outcome.DONE, "older")
        await place.store.commit(Put(PATHS.receipt(epoch), old.encode()))
    await place.manager()
    await place.until_serving(2)
    place.group.master.kill()
    topology = await place.until_serving(1, other_than=place.group.master.node)
    assert topology.epoch > 4


async def test_after_an_outage_of_the_store_the_others_reports_count_before_they_are_renewed(
    place: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = Rule(max_age=0.1)
    primary = await place.manager(rule=rule)
    await place.until_serving(2)
    others = [await place.manager() for _ in range(2)]
    for number in (1, 2):
        await place.report(f"manager{number}", lambda report: len(report.nodes) == 3)
    master = place.group.master.node

    async def blind() -> NodeReport:
        raise NodeUnreachable("only this manager cannot reach it")

    for manager in others:
        manager.store.suspend()
    itself = primary.daemon
    itself._mirror.spoil_all()
    await itself._mirror.refresh()
    itself._view()  # their last reports are known
    primary.store.suspend()
    monkeypatch.setattr(itself._servers.probers[master].admin, "probe", blind)
    await eventually(lambda: itself._servers.probers[master].detector.verdict is Verdict.UNAVAILABLE)
    await asyncio.sleep(rule.max_age)  # longer than reports count
    primary.store.resume()
    itself._mirror.spoil_all()
    await itself._mirror.refresh()
    assert itself._view().standings[master].available, "two of three saw it well when it was last asked"


async def test_a_store_that_answers_with_an_unforeseen_error_does_not_end_the_manager(
    place: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = await place.manager()
    await place.until_serving(2)
    commit, failed = manager.store.commit, asyncio.Event()

    async def once(*changes: Change, fence: Fence | None = None) -> None:
        if not failed.is_set():
            failed.set()
            raise StoreError("the record is too large")
        await commit(*changes, fence=fence)

    monkeypatch.setattr(manager.store, "commit", once)
    place.group.master.kill()
    await place.until_serving(1, other_than=place.group.master.node)
    assert failed.is_set()


async def test_stopping_the_primary_manager_gives_the_role_away_at_once(place: Site) -> None:
    first = await place.manager()
    await place.until_serving(2)
    await place.manager()
    await first.stop()
    assert await place.store.read(PATHS.manager("manager0")) is None
    place.group.master.kill()
    await place.until_serving(1, other_than=place.group.master.node)
    assert (await place.receipts())[0].manager == "manager1"


async def test_the_primary_hears_at_once_of_a_server_that_another_manager_finds_dead(
    place: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "ANNOUNCE_INTERVAL", 3600.0)
    rule = Rule(Strategy.CONSENSUS, required=2, max_age=3600.0)
    for _ in range(2):
        await place.manager(rule=rule)
    await place.until_serving(2)
    place.group.master.kill()
    await place.until_serving(1, other_than=place.group.master.node)


async def test_nothing_happens_before_enough_managers_report(place: Site) -> None:
    rule = Rule(Strategy.MAJORITY, required=2)
    await place.manager(rule=rule)
    await place.report("manager0", lambda report: len(report.nodes) == 3)
    assert await place.topology() is None
    await place.manager(rule=rule)
    await place.until_serving(2)


async def test_a_manager_that_is_cut_off_from_the_store_does_nothing_until_it_is_back(place: Site) -> None:
    manager = await place.manager()
    await place.until_serving(2)
    other = await place.manager()
    manager.store.suspend()
    place.group.master.kill()
    await place.report("manager1", lambda report: not all(node.available for node in report.nodes))
    await other.stop()
    topology = await place.topology()
    assert topology is not None
    assert topology.phase is Phase.SERVING
    manager.store.resume()
    await place.until_serving(1, other_than=place.group.master.node)


async def test_an_expired_session_means_a_new_tenure_and_the_work_goes_on(place: Site) -> None:
    manager = await place.manager()
    await place.until_serving(2)
    manager.store.expire()
    place.group.master.kill()
    await place.until_serving(1, other_than=place.group.master.node)


async def test_while_paused_a_dead_master_is_reported_but_not_replaced(place: Site) -> None:
    await place.manager()
    await place.until_serving(2)
    await place.store.commit(Put(PATHS.paused, b""))
    place.group.master.kill()
    await place.report("manager0", lambda report: not all(node.available for node in report.nodes))
    receipt = await place.ask(None)
    assert receipt.outcome is Outcome.REFUSED
    topology = await place.topology()
    assert topology is not None
    assert topology.master == place.group.master.node
    await place.store.commit(Delete(PATHS.paused))
    await place.until_serving(1, other_than=place.group.master.node)


@pytest.mark.parametrize("data", [b"{garbage", b'{"format": 99, "master": null}'])
async def test_a_record_that_cannot_be_read_is_left_alone(place: Site, data: bytes) -> None:
    await place.store.commit(Put(PATHS.nodes, data))
    await place.manager()
    await place.report("manager0", lambda report: len(report.nodes) == 3)
    entry = await place.store.read(PATHS.nodes)
    assert entry is not None
    assert entry.data == data
    good = Topology(epoch=7, phase=Phase.SERVING, master=place.group.master.node)
    await place.store.commit(Put(PATHS.nodes, good.encode(), entry.version))
    assert (await place.until_serving(2)).epoch == 7


async def test_a_record_of_the_gem_is_completed_without_an_outage(place: Site) -> None:
    master = place.group.master.node
    await place.store.commit(
        Put(PATHS.nodes, b'{"master": "%s", "slaves": [], "unavailable": []}' % str(master).encode())
    )
    await place.manager()
    topology = await place.until_serving(2)
    assert (topology.epoch, topology.master) == (1, master)
    assert topology.run_id


async def test_a_record_that_was_deleted_is_made_anew_beyond_every_epoch_that_was_used(place: Site) -> None:
    await place.manager()
    await place.until_serving(2)
    receipt = await place.ask(None)
    await place.until_serving(2)
    await place.store.commit(Delete(PATHS.nodes))
    assert (await place.until_serving(2)).epoch > receipt.epoch
    assert (await place.ask(None)).outcome is Outcome.DONE


async def test_a_receipt_that_others_left_behind_is_not_in_the_way(place: Site) -> None:
    old = Receipt(2, Kind.FAILOVER, Outcome.DONE, "of another installation")
    await place.store.commit(Put(PATHS.receipt(2), old.encode()))
    nodes = b'{"master": "%s", "slaves": [], "unavailable": []}' % str(place.group.master.node).encode()
    await place.store.commit(Put(PATHS.nodes, nodes))
    await place.manager()
    await place.until_serving(2)
    assert (await place.ask(None)).outcome is Outcome.DONE


async def test_several_masters_are_not_chosen_from_until_an_operator_names_one(place: Site) -> None:
    stray = place.group.replicas[0]
    stray.command("REPLICAOF", "NO", "ONE")
    await place.manager()
    await place.report("manager0", lambda report: len(report.nodes) == 3)
    assert await place.topology() is None
    receipt = await place.ask(place.group.master.node)
    assert receipt.outcome is Outcome.DONE
    topology = await place.until_serving(2)
    assert topology.master == place.group.master.node
    assert stray.info()["role"] == "slave"


async def test_servers_that_ask_for_a_password_are_alive_but_nobody_guesses_their_roles() -> None:
    with RedisServer(requirepass="secret") as server:
        group = RedisGroup(0)
        group.servers = [server]
        async with site(group) as place:
            await place.manager()
            report = await place.report("manager0", lambda report: bool(report.nodes))
            assert report.nodes[0].available
            assert report.nodes[0].condition == "noauth"
            assert await place.topology() is None


async def test_a_replica_loses_its_place_in_the_list_while_its_link_is_down(place: Site) -> None:
    await place.manager()
    await place.until_serving(2)
    replica = place.group.replicas[0]
    replica.kill()
    topology = await place.until(lambda topology: len(topology.replicas) == 1)
    assert replica.node in topology.unavailable
    assert topology.epoch == 1


@pytest.mark.parametrize("how", ["raises", "ends", "is cancelled from within"])
async def test_manager__one_of_its_tasks_dies__says_why_gives_up_its_role_and_ends(
    place: Site, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = await place.manager()
    await place.until_serving(2)
    assert manager.task is not None

    async def die(_: Prober) -> None:
        if how == "raises":
            raise RuntimeError("nobody thought of this")
        if how == "is cancelled from within":
            raise asyncio.CancelledError

    with structlog.testing.capture_logs() as lines:
        monkeypatch.setattr(Prober, "run", die)
        other = await place.manager()
        assert other.task is not None
        with pytest.raises(ManagerFailed, match="has died"):
            await other.task
    died = [line for line in lines if line["event"].startswith("a task of the manager has died")]
    assert {line["task"] for line in died} == {f"prober of {node}" for node in place.group.nodes}
    assert all(line["log_level"] == "error" for line in died)
    if how == "raises":
        assert died[0]["error"] == "RuntimeError('nobody thought of this')"
    assert manager.daemon.tenure.state is State.PRIMARY
    assert not manager.task.done()


async def test_manager__a_server_of_the_record_cannot_be_looked_up__unresolved_and_others_are_served(
    place: Site,
) -> None:
    await place.manager()
    topology = await place.until_serving(2)
    lost = Node("db..example", 6379)
    await place.managers[0].stop()
    entry = await place.store.read(PATHS.nodes)
    assert entry is not None
    record = replace(topology, unavailable=(lost,)).encode()
    await place.store.commit(Put(PATHS.nodes, record, entry.version))
    manager = await place.manager()
    await place.report(
        "manager1", lambda report: any(node.node == lost and node.condition == "unresolved" for node in report.nodes)
    )
    assert manager.task is not None
    assert not manager.task.done()
    place.group.master.kill()
    assert (await place.until_serving(1, other_than=place.group.master.node)).master is not None


async def test_manager__all_unresolved_until_the_store_comes__takes_nobody_for_lost(
    place: Site, redis_group: RedisGroup
) -> None:
    """What it found out before it knew the addresses that another manager kept does not count."""
    nodes = tuple(Node(f"redis-{number}", server.port) for number, server in enumerate(redis_group.servers))
    await AddressRecord(place.store, PATHS.addresses).save({node.host: ["127.0.0.1"] for node in nodes}, time.time())
    run_id, replid = redis_group.master.info("server")["run_id"], redis_group.master.info()["master_replid"]
    await place.store.commit(
        Put(PATHS.nodes, Topology(1, Phase.SERVING, nodes[0], nodes[1:], (), run_id, replid).encode())
    )
    failure = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    resolver = Resolver(look_up=LookUps({node.host: failure for node in nodes}).look_up)
    store = MemStore(place.tree)
    await store.start()
    store.suspend()
    started = daemon.Daemon(Settings(nodes), store, "manager", resolver=resolver)
    task = asyncio.create_task(started.run())
    await eventually(started._servers.all_seen.is_set)
    assert {report.condition for report in started._servers.reports.values()} == {"unresolved"}
    store.resume()
    await eventually(lambda: started.tenure.state is State.PRIMARY)
    await eventually(lambda: all(report.available for report in started._servers.reports.values()))
    topology = await place.topology()
    assert topology is not None
    assert (topology.epoch, topology.phase, topology.master) == (1, Phase.SERVING, nodes[0])
    await started.stop()
    await task
    resolver.close()


def test_the_options_of_the_program_become_settings_and_the_password_stays_secret() -> None:
    config = ManagerConfig(nodes=(Node("h", 1),), password="hidden", node_strategy="consensus", fence_wait=2.0)  # type: ignore[arg-type]  # pydantic makes a SecretStr of it
    made = Settings.of(config)
    assert made.rule.strategy is Strategy.CONSENSUS
    assert made.policy.fence_wait == 2.0
    assert made.policy.outseen_after == made.limits.longest + made.rule.max_age
    assert made.credentials.password == "hidden"
    assert "hidden" not in repr(made)
