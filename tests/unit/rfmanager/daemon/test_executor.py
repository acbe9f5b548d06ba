"""Single steps against real servers and a store in memory."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import structlog

from rfmanager.daemon.executor import Executor, NoTenure
from rfmanager.daemon.leadership import Event, Tenure
from rfmanager.daemon.store_mirror import Mirror
from rfmanager.decision.plan import CatchUp, Demote, Policy, Promote, Record, Repoint, Seal, Stage, Unpause, Wait
from rfmanager.evidence.candidates import why_not
from rfmanager.monitoring.redis_admin import RedisAdmin
from rfprotocol.errors import FenceLost, NodeUnreachable, StoreConflict, StoreError, StoreUnavailable
from rfprotocol.store.interface import Put
from rfprotocol.store.memory import MemStore, MemTree
from rfprotocol.topology.records import ManualRequest, Outcome, ProxyRecord, Receipt
from rfprotocol.topology.topology import Change, Kind, Node, NodeReport, Phase, Topology
from rfprotocol.topology.znode_paths import Paths
from tests.support.eventually import eventually
from tests.support.redis import RedisGroup, RedisServer

PATHS = Paths()


class Bench:
    """An executor with a tenure over the servers of a group."""

    def __init__(self, group: RedisGroup) -> None:
        self.group = group
        self.store = MemStore(MemTree(asyncio.Event))
        self.tenure = Tenure()
        self.changed = asyncio.Event()
        self.released = asyncio.Event()
        self.points: list[str] = []
        self.seen: dict[Node, NodeReport] = {}
        self.mirror = Mirror(self.store, PATHS, lambda: None, structlog.get_logger())
        self.admins = {node: RedisAdmin(node) for node in group.nodes}
        self.executor = Executor(
            self.store,
            PATHS,
            self.mirror,
            self.tenure,
            self.admins,
            Policy(catch_up_timeout=0.3),
            changed=lambda node: self.changed.set(),
            seen=self.seen.get,
            log=structlog.get_logger(),
            history_limit=2,
            failpoint=self.points.append,
        )

    def stage(self) -> Stage:
        return self.executor.progress.stage

    async def start(self) -> None:
        await self.store.start()
        fence = await self.store.campaign(PATHS.lock, "m")
        self.tenure.elected(fence, self.store.session)
        self.tenure.proved(time.monotonic(), self.store.session, 60.0)
        await self.mirror.refresh()

    async def stop(self) -> None:
        await self.executor.stop()
        for admin in self.admins.values():
            await admin.close()
        await self.store.close()


@pytest.fixture
async def bench(redis_group: RedisGroup) -> AsyncIterator[Bench]:
    bench = Bench(redis_group)
    await bench.start()
    yield bench
    await bench.stop()


def serving(bench: Bench, epoch: int) -> Topology:
    return Topology(epoch=epoch, phase=Phase.SERVING, master=bench.group.master.node)


def receipt(epoch: int) -> Receipt:
    return Receipt(epoch, Kind.SWITCHOVER, Outcome.REFUSED, "why", steps=(("noticed", 1.0),))


async def test_a_record_its_receipt_and_the_answered_request_change_together(bench: Bench) -> None:
    await bench.store.commit(Put(PATHS.manual_failover, ManualRequest(None).encode()))
    bench.mirror.spoil_all()
    await bench.mirror.refresh()
    await bench.executor.execute(Record("refuse", serving(bench, 1), receipt(1), settles=True))
    await bench.mirror.refresh()
    assert bench.mirror.topology == serving(bench, 1)
    assert bench.mirror.request is None
    entry = await bench.store.read(PATHS.receipt(1))
    assert entry is not None
    assert Receipt.decode(entry.data) == receipt(1)
    assert bench.points == ["after-refuse"]


async def test_a_record_that_somebody_else_changed_is_not_overwritten(bench: Bench) -> None:
    await bench.store.commit(Put(PATHS.nodes, b"other"))
    with pytest.raises(StoreConflict):
        await bench.executor.execute(Record("settle", serving(bench, 1)))
    entry = await bench.store.read(PATHS.nodes)
    assert entry is not None
    assert entry.data == b"other"


async def test_a_manager_that_was_deposed_unnoticed_changes_nothing(bench: Bench) -> None:
    assert bench.tenure.fence is not None
    await bench.store.withdraw(bench.tenure.fence.path)
    with pytest.raises(FenceLost):
        await bench.executor.execute(Record("settle", serving(bench, 1)))
    assert await bench.store.read(PATHS.nodes) is None


async def test_without_a_certain_tenure_no_step_touches_anything(bench: Bench) -> None:
    bench.tenure.move(Event.CUT_OFF)
    master, replica = bench.group.master.node, bench.group.replicas[0].node
    for step in (
        Record("settle", serving(bench, 1)),
        Seal((replica,)),
        Promote(replica),
        CatchUp(master, replica),
        Demote(master, replica),
        Unpause(master),
        Repoint((replica,), master),
    ):
        with pytest.raises(NoTenure):
            await bench.executor.execute(step)
    assert [server.info()["role"] for server in bench.group.servers] == ["master", "slave", "slave"]


async def test_sealing_reads_the_offsets_and_one_dead_server_does_not_spoil_it(bench: Bench) -> None:
    dead, alive = bench.group.replicas
    dead.kill()
    bench.executor.begin(1)
    await bench.executor.execute(Seal((dead.node, alive.node)))
    progress = bench.executor.progress
    assert set(progress.sealed) == {alive.node}
    assert progress.sealed[alive.node].offset >= 0
    assert set(progress.failed) == {dead.node}
    assert [name for name, _ in progress.steps] == ["acknowledged", "sealed"]


async def test_replicas_sealed_before_the_proxies_have_acknowledged_do_not_claim_that_they_had(bench: Bench) -> None:
    await bench.store.announce(PATHS.proxy("p"), ProxyRecord(0).encode())
    bench.mirror.spoil_all()
    await bench.mirror.refresh()
    bench.executor.begin(1)
    await bench.executor.execute(Seal((bench.group.replicas[0].node,)))
    assert [name for name, _ in bench.executor.progress.steps] == ["sealed"]


async def test_it_is_noted_once_when_each_proxy_acknowledged(bench: Bench) -> None:
    bench.executor.begin(2)
    bench.executor.look_at({"quick": ProxyRecord(2), "slow": ProxyRecord(1)})
    first = bench.executor.progress.acknowledged
    assert set(first) == {"quick"}
    bench.executor.look_at({"quick": ProxyRecord(2), "slow": ProxyRecord(2)})
    then = bench.executor.progress.acknowledged
    assert then["slow"] >= then["quick"] == first["quick"]


async def test_a_receipt_says_in_the_end_when_the_record_was_in_force(bench: Bench) -> None:
    await bench.store.announce(PATHS.proxy("p"), ProxyRecord(1).encode())
    before = time.time()
    await bench.executor.execute(Record("refuse", serving(bench, 1), receipt(1)))
    assert (await _receipt(bench)).steps == (("noticed", 1.0),)
    await _complete(bench)
    [(name, at)] = (await _receipt(bench)).steps
    assert name == "noticed"
    assert at >= before


async def test_a_replica_reads_what_its_master_has_sent_before_it_is_sealed(bench: Bench) -> None:
    replica = bench.group.replicas[0]
    with bench.group.master.client() as client:
        client.set("k", "v")
        client.wait(2, 5000)  # after a full transfer a master begins to send only when it has heard of its end
        for number in range(200):
            client.set(f"k{number}", "x" * 10_000)
    bench.executor.begin(1)
    await bench.executor.execute(Seal((replica.node,)))
    with replica.client() as client:
        assert client.dbsize() == 201


async def test_a_replica_that_begins_to_copy_a_restarted_master_is_sealed_with_the_data_it_has(bench: Bench) -> None:
    master, replica = bench.group.master, bench.group.replicas[0]
    history = replica.info()["master_replid"]
    with master.client() as client:
        client.set("k", "v")
        client.wait(2, 5000)
    master.options["rdb_key_save_delay"] = 20_000  # microseconds: the transfer takes two seconds
    master.restart()
    with master.client() as client:
        client.mset({f"other{number}": number for number in range(100)})
    await eventually(lambda: replica.info()["master_sync_in_progress"])
    bench.executor.begin(1)
    await bench.executor.execute(Seal((replica.node,)))
    sealed = bench.executor.progress.sealed[replica.node]
    assert why_not(sealed, history) is None
    with replica.client() as client:
        assert client.keys() == ["k"]


async def test_promotion_is_verified_and_noted(bench: Bench) -> None:
    node = bench.group.replicas[0].node
    bench.executor.begin(1)
    await bench.executor.execute(Promote(node))
    assert bench.executor.progress.promoted is not None
    assert bench.executor.progress.promoted.role == "master"
    assert bench.points == ["after-promote"]


async def test_a_failed_promotion_is_noted_with_its_reason(bench: Bench) -> None:
    server = bench.group.replicas[0]
    server.kill()
    bench.executor.begin(1)
    await bench.executor.execute(Promote(server.node))
    assert bench.executor.progress.promoted is None
    assert server.node in bench.executor.progress.failed
    assert "could not be promoted" in bench.executor.progress.trouble


def in_force(bench: Bench, *, former_run_id: str = "run") -> RedisServer:
    """A failover to the first replica is under way, from a master whose events were `xE` in the process `run`."""
    master, target = bench.group.master, bench.group.replicas[0]
    change = Change(Kind.FAILOVER, "it died", master.node, target.node, former_run_id=former_run_id)
    bench.mirror.wrote(Topology(1, Phase.PROMOTING, run_id="target", change=change))
    bench.seen[master.node] = NodeReport(master.node, False, run_id="run", events="xE")
    bench.seen[target.node] = NodeReport(target.node, True, role="slave", events="")
    bench.executor.begin(1)
    return target


def events_of(server: RedisServer) -> str:
    return str(server.command("CONFIG", "GET", "notify-keyspace-events")["notify-keyspace-events"])


async def test_events__of_the_former_master__hold_at_the_next_one(bench: Bench) -> None:
    target = in_force(bench)
    await bench.executor.execute(Promote(target.node))
    assert events_of(target) == "xE"
    assert "took over notify-keyspace-events" in dict(bench.executor.progress.steps), "for the receipt"
    assert events_of(bench.group.replicas[1]) == "", "only the master has listeners"


async def test_events__former_master_was_started_again__its_file_decides_nothing(bench: Bench) -> None:
    target = in_force(bench, former_run_id="an earlier one")
    await bench.executor.execute(Promote(target.node))
    assert events_of(target) == ""


async def test_events__refused__server_is_promoted_all_the_same(bench: Bench) -> None:
    target = in_force(bench)
    target.command("ACL", "SETUSER", "default", "-config")
    await bench.executor.execute(Promote(target.node))
    assert bench.executor.progress.promoted is not None
    target.command("ACL", "SETUSER", "default", "+config")
    assert events_of(target) == ""


async def test_a_handover_pauses_catches_up_promotes_and_demotes(bench: Bench) -> None:
    master, target = bench.group.master, bench.group.replicas[0]
    bench.executor.begin(1)
    await bench.executor.execute(CatchUp(master.node, target.node))
    assert bench.stage() is Stage.CAUGHT_UP
    await bench.executor.execute(Promote(target.node))
    await bench.executor.execute(Demote(master.node, target.node))
    assert bench.stage() is Stage.DEMOTED
    assert master.info()["role"] == "slave"
    assert bench.points == ["after-catch-up", "after-promote", "after-demote"]


async def test_a_target_that_does_not_catch_up_is_said_to_be_late(bench: Bench) -> None:
    master, target = bench.group.master, bench.group.replicas[0]
    target.freeze()
    bench.executor.begin(1)
    await bench.executor.execute(CatchUp(master.node, target.node))
    target.thaw()
    assert bench.stage() is Stage.DRAIN
    assert "did not catch up" in bench.executor.progress.trouble
    await bench.executor.execute(Unpause(master.node))
    assert bench.stage() is Stage.RELEASED
    master.command("SET", "k", "v")


async def test_nobody_catches_up_with_a_master_that_came_back_empty(bench: Bench) -> None:
    master, target = bench.group.master, bench.group.replicas[0]
    run_id = master.info("server")["run_id"]
    await bench.executor.execute(Record("drain", replace(serving(bench, 1), run_id=run_id)))
    master.restart()
    await bench.executor.execute(CatchUp(master.node, target.node))
    assert bench.stage() is Stage.DRAIN
    assert "not the master any more" in bench.executor.progress.trouble


async def test_pointing_replicas_elsewhere_does_not_wait_for_the_slowest(bench: Bench) -> None:
    slow, quick = bench.group.replicas
    slow.freeze()
    await bench.executor.execute(Repoint((slow.node, quick.node), bench.group.master.node))
    assert bench.executor.progress.busy == {slow.node, quick.node}
    while quick.node in bench.executor.progress.busy:
        bench.changed.clear()
        await bench.changed.wait()
    slow.thaw()


async def test_a_command_of_an_earlier_epoch_never_reaches_the_new_master(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, other = (server.node for server in bench.group.replicas)
    stuck, admin = asyncio.Event(), bench.admins[target]

    async def stands_still(master: Node) -> None:
        stuck.set()
        await bench.released.wait()
        await RedisAdmin.replicate(admin, master)

    monkeypatch.setattr(admin, "replicate", stands_still)
    bench.executor.begin(5)
    await bench.executor.execute(Repoint((target,), bench.group.master.node))
    await stuck.wait()
    bench.executor.begin(6)
    await bench.executor.execute(Seal((target, other)))
    await bench.executor.execute(Promote(target))
    bench.released.set()
    # What had been left behind would have been sent by the time that these are answered.
    for _ in range(20):
        await admin.probe()
    assert (await admin.probe()).role == "master"


async def test_a_step_that_ended_without_tenure_leaves_nothing_running(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, other = (server.node for server in bench.group.replicas)
    admin, probes = bench.admins[target], 0

    async def first_stands_still() -> NodeReport:
        nonlocal probes
        probes += 1
        if probes == 1:
            await bench.released.wait()
        return await RedisAdmin.probe(admin)

    monkeypatch.setattr(admin, "probe", first_stands_still)
    bench.executor.begin(5)
    bench.tenure.move(Event.CUT_OFF)
    with pytest.raises(NoTenure):
        await bench.executor.execute(Seal((target, other)))
    bench.tenure.move(Event.RECONNECTED)
    await bench.executor.execute(Seal((target, other)))
    await bench.executor.execute(Promote(target))
    bench.released.set()
    # A seal left behind would have been sent by the time that these are answered.
    for _ in range(20):
        await RedisAdmin.probe(admin)
    assert (await RedisAdmin.probe(admin)).role == "master"


async def test_a_replica_is_not_repointed_when_setting_its_credentials_took_what_was_left_of_the_tenure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = bench.group.replicas[0].node
    admin, pointed = bench.admins[replica], []

    async def outlasts_the_lease() -> None:
        bench.tenure.move(Event.CUT_OFF)

    async def replicate(master: Node) -> None:
        pointed.append(master)

    monkeypatch.setattr(RedisAdmin, "set_master_credentials", lambda admin, said: outlasts_the_lease())
    monkeypatch.setattr(admin, "replicate", replicate)
    await bench.executor.execute(Repoint((replica,), bench.group.master.node))
    while bench.executor.progress.busy:
        bench.changed.clear()
        await bench.changed.wait()
        await asyncio.sleep(0)
    assert not pointed
    assert replica in bench.executor.progress.failed


async def test_what_a_server_refuses_is_kept_in_its_words_until_it_obeys_or_the_epoch_ends(bench: Bench) -> None:
    bench.executor.begin(1)
    replica = bench.group.replicas[0]
    replica.command("CONFIG", "SET", "requirepass", "secret")
    await bench.executor.execute(Seal((replica.node,)))
    said = bench.executor.refusal(replica.node)
    assert said.startswith("cannot be detached from its master: ")
    assert "NOAUTH" in said
    assert str(replica.node) not in said, "whoever shows it names the server"
    bench.executor.begin(2)
    assert bench.executor.refusal(replica.node) == ""


async def test_catching_up_fails_when_the_former_master_cannot_be_told_its_masterauth_and_pauses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, target = bench.group.master, bench.group.replicas[0].node

    async def unreachable() -> None:
        raise NodeUnreachable(f"{master.node} did not answer in time")

    monkeypatch.setattr(RedisAdmin, "set_master_credentials", lambda admin, said: unreachable())
    bench.executor.begin(1)
    await bench.executor.execute(CatchUp(master.node, target))
    assert "did not answer in time" in bench.executor.progress.trouble
    assert master.command("SET", "k", "v"), "its writes are not paused"


async def test_another_operators_request_outlives_the_answer_to_a_withdrawn_one(bench: Bench) -> None:
    await bench.store.commit(Put(PATHS.manual_failover, ManualRequest(None).encode()))
    bench.mirror.spoil_all()
    await bench.mirror.refresh()
    entry = bench.mirror.request_entry
    assert entry is not None
    earlier = replace(receipt(1), request=entry.created - 1)
    await bench.executor.execute(Record("refuse", serving(bench, 1), earlier, settles=True))
    assert await bench.store.read(PATHS.manual_failover) == entry
    await bench.mirror.refresh()
    own = replace(receipt(2), request=entry.created)
    await bench.executor.execute(Record("refuse", serving(bench, 2), own, settles=True))
    assert await bench.store.read(PATHS.manual_failover) is None


async def test_progress_ends_with_the_epoch(bench: Bench) -> None:
    bench.executor.begin(1)
    await bench.executor.execute(Seal((bench.group.replicas[0].node,)))
    bench.executor.begin(1)
    assert bench.executor.progress.sealed
    bench.executor.begin(2)
    assert not bench.executor.progress.sealed


async def test_a_receipt_is_completed_when_all_proxies_have_seen_the_change(bench: Bench) -> None:
    await bench.executor.execute(Record("refuse", serving(bench, 1), receipt(1)))
    await bench.store.announce(PATHS.proxy("p"), ProxyRecord(0).encode())
    await _complete(bench)
    assert not (await _receipt(bench)).proxies
    await bench.store.announce(PATHS.proxy("p"), ProxyRecord(1, held=7).encode())
    await _complete(bench)
    assert (await _receipt(bench)).proxies["p"]["held"] == 7


async def test_a_receipt_that_the_store_does_not_take_stands_in_nobodys_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.executor.execute(Record("refuse", serving(bench, 1), receipt(1)))
    await bench.store.announce(PATHS.proxy("p"), ProxyRecord(1, held=7).encode())
    with monkeypatch.context() as patched:
        patched.setattr(bench.store, "commit", _refused)
        with pytest.raises(StoreError, match="too large"):
            await _complete(bench)
        await _complete(bench)


async def test_a_receipt_is_completed_when_the_store_is_there_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.executor.execute(Record("refuse", serving(bench, 1), receipt(1)))
    await bench.store.announce(PATHS.proxy("p"), ProxyRecord(1, held=7).encode())
    with monkeypatch.context() as patched:
        patched.setattr(bench.store, "commit", _unavailable)
        with pytest.raises(StoreUnavailable):
            await _complete(bench)
    await _complete(bench)
    assert (await _receipt(bench)).proxies["p"]["held"] == 7


def lost(bench: Bench, ago: float) -> Receipt:
    """Of a change of master that ended so many seconds ago."""
    former, at = bench.group.master.node, time.time() - ago
    steps = (("noticed", at - 1.5), ("published", at))
    return Receipt(1, Kind.FAILOVER, Outcome.DONE, "silent", former, steps=steps, lost="timeout", run_id="same")


def seen(bench: Bench, run_id: str, available: bool = True) -> dict[Node, NodeReport]:
    """The former master, as this manager sees it."""
    node = bench.group.master.node
    return {node: NodeReport(node, available, run_id=run_id)}


async def test_executor__the_former_master_returns__is_noted(bench: Bench) -> None:
    await bench.store.commit(Put(PATHS.receipt(1), lost(bench, ago=2.0).encode()))
    bench.mirror.spoil_all()
    await bench.mirror.refresh()
    await bench.executor.note_returns(seen(bench, "same"), time.time())
    noted = (await _receipt(bench)).returned
    assert noted is not None
    assert 2.0 <= noted < 3.0
    assert next(iter(bench.mirror.receipts.values())).false_alarm
    await bench.executor.note_returns(seen(bench, "same"), time.time() + 1)
    assert (await _receipt(bench)).returned == noted


@pytest.mark.parametrize(
    ("ago", "run_id", "available"), [(2.0, "another", True), (2.0, "same", False), (11.0, "same", True)]
)
async def test_executor__another_process_or_too_late__is_no_false_alarm(
    bench: Bench, ago: float, run_id: str, available: bool
) -> None:
    await bench.store.commit(Put(PATHS.receipt(1), lost(bench, ago).encode()))
    bench.mirror.spoil_all()
    await bench.mirror.refresh()
    await bench.executor.note_returns(seen(bench, run_id, available), time.time())
    assert not (await _receipt(bench)).false_alarm


async def test_executor__a_receipt_is_completed_later__keeps_the_return(bench: Bench) -> None:
    done = replace(lost(bench, ago=0.0), epoch=1)
    await bench.executor.execute(Record("publish", serving(bench, 1), done))
    await bench.executor.note_returns(seen(bench, "same"), time.time())
    await bench.store.announce(PATHS.proxy("p"), ProxyRecord(1, held=7).encode())
    await _complete(bench)
    assert (await _receipt(bench)).false_alarm
    assert (await _receipt(bench)).proxies["p"]["held"] == 7


async def test_executor__the_store_refuses_a_return__is_not_asked_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.store.commit(Put(PATHS.receipt(1), lost(bench, ago=2.0).encode()))
    bench.mirror.spoil_all()
    await bench.mirror.refresh()
    monkeypatch.setattr(bench.store, "commit", _refused)
    with pytest.raises(StoreError, match="too large"):
        await bench.executor.note_returns(seen(bench, "same"), time.time())
    await bench.executor.note_returns(seen(bench, "same"), time.time())


async def _refused(*changes: object, fence: object) -> None:
    raise StoreError("the record is too large")


async def _unavailable(*changes: object, fence: object) -> None:
    raise StoreUnavailable("no connection")


async def test_old_receipts_are_removed(bench: Bench) -> None:
    changed = asyncio.Event()
    bench.store.watch(PATHS.history, changed.set)
    for epoch in range(1, 5):
        await bench.executor.execute(Record("refuse", serving(bench, epoch), receipt(epoch)))
        await bench.mirror.refresh()
    while len(kept := await bench.store.read_children(PATHS.history)) > 2:
        changed.clear()
        await changed.wait()
    assert sorted(Receipt.decode(entry.data).epoch for entry in kept.values()) == [3, 4]


async def _complete(bench: Bench) -> None:
    bench.mirror.spoil_all()
    await bench.mirror.refresh()
    await bench.executor.complete_receipt()


async def _receipt(bench: Bench) -> Receipt:
    entry = await bench.store.read(PATHS.receipt(1))
    assert entry is not None
    return Receipt.decode(entry.data)


async def test_waiting_does_nothing(bench: Bench) -> None:
    before = bench.executor.progress
    await bench.executor.execute(Wait("why"))
    assert bench.executor.progress == before


def test_the_failpoint_of_the_environment_kills_the_process() -> None:
    code = "from rfmanager.daemon.executor import kill_when_asked as at; at('after-mark'); at('after-seal')"
    done = subprocess.run([sys.executable, "-c", code], env={"RF_FAILPOINT": "after-seal"}, check=False)
    assert done.returncode == -signal.SIGKILL
    done = subprocess.run([sys.executable, "-c", code], env={}, check=False)
    assert done.returncode == 0


def test_the_failpoint_freezes_the_process_when_it_says_so() -> None:
    code = "from rfmanager.daemon.executor import kill_when_asked as at; at('after-seal')"
    with subprocess.Popen([sys.executable, "-c", code], env={"RF_FAILPOINT": "after-seal:STOP"}) as process:
        seen = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED)
        assert seen is not None
        assert seen.si_code == os.CLD_STOPPED
        process.send_signal(signal.SIGCONT)
        assert process.wait() == 0
