"""Candidates for the role of primary manager, at a store in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
import structlog
from structlog.testing import capture_logs

from rfmanager.daemon import candidacy
from rfmanager.daemon.candidacy import Candidacy
from rfmanager.daemon.leadership import State
from rfprotocol import clock
from rfprotocol.errors import StoreError, StoreUnavailable
from rfprotocol.store.interface import Fence
from rfprotocol.store.memory import MemStore, MemTree
from rfprotocol.topology.znode_paths import Paths
from tests.support.eventually import eventually

PATHS = Paths()


class Candidate:
    """A candidacy with a store of its own, and the calls that it made."""

    def __init__(self, tree: MemTree, name: str) -> None:
        self.store = MemStore(tree)
        self.calls: list[str] = []
        self.candidacy = Candidacy(
            self.store,
            PATHS,
            name,
            structlog.get_logger(),
            ended=self._note("ended"),
            covered=self._note("covered"),
            session_began=self._note("session began"),
            gem_leads=lambda leads: self.calls.append(f"gem leads: {leads}"),
        )
        self.tenure = self.candidacy.tenure

    def _note(self, call: str) -> Callable[[], None]:
        return lambda: self.calls.append(call)

    async def start(self) -> None:
        self.store.subscribe(self.candidacy.store_moved)
        await self.store.start()

    async def lead(self) -> None:
        await self.candidacy.take_seats()
        self.candidacy.begin()

    def acts(self) -> bool:
        return self.tenure.covers(clock.now())


@pytest.fixture
def tree() -> MemTree:
    return MemTree(asyncio.Event)


@pytest.fixture
async def one(tree: MemTree) -> AsyncIterator[Candidate]:
    one = Candidate(tree, "m1")
    await one.start()
    async with running(one):
        yield one
    await one.store.close()


@contextlib.asynccontextmanager
async def running(candidate: Candidate) -> AsyncIterator[None]:
    """Its tenure is proved, and the gem's lock is looked at."""
    tasks = [asyncio.create_task(work()) for work in (candidate.candidacy.prove, candidate.candidacy.look_for_gem)]
    yield
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_tenure_covers_actions_after_its_first_proof(one: Candidate) -> None:
    await one.lead()
    assert (one.tenure.state, one.acts()) == (State.PRIMARY, False)
    await eventually(one.acts)
    assert "covered" in one.calls
    seats = [*(await one.store.read_children(PATHS.lock)).values()]
    assert one.candidacy.led_since == seats[0].created


async def test_second_candidate_waits_until_first_gives_up(one: Candidate, tree: MemTree) -> None:
    await one.lead()
    other = Candidate(tree, "m2")
    await other.start()
    standing = asyncio.create_task(other.candidacy.take_seats())
    await asyncio.sleep(0.01)
    assert not standing.done()
    with capture_logs() as logs:
        await one.candidacy.give_up()
    assert [line["event"] for line in logs] == ["gave up the role of primary manager"]
    await standing
    assert one.tenure.state is State.LOST


async def test_giving_up_without_a_tenure_says_nothing(one: Candidate) -> None:
    with capture_logs() as logs:
        await one.candidacy.give_up()
    assert logs == []


async def test_tenure_is_suspended_while_cut_off_and_proved_again_after_it(one: Candidate) -> None:
    await one.lead()
    await eventually(one.acts)
    one.store.suspend()
    assert one.tenure.state is State.SUSPENDED
    one.store.resume()
    await eventually(one.acts)
    assert "ended" not in one.calls


async def test_tenure_ends_with_the_session(one: Candidate) -> None:
    await one.lead()
    with capture_logs() as logs:
        one.store.expire()
        await one.candidacy.over()
    assert one.calls.count("ended") == 1
    assert one.calls[-2:] == ["ended", "session began"]
    assert [line["why"] for line in logs if line["event"] == "lost the role of primary manager"]
    await one.candidacy.leave()
    assert one.tenure.state is State.FOLLOWER
    await one.lead()
    await eventually(one.acts)


@pytest.mark.parametrize("lock", [PATHS.gem_lock, PATHS.lock])
async def test_tenure_ends_when_a_seat_is_gone(one: Candidate, lock: str) -> None:
    await one.lead()
    await eventually(one.acts)
    [seat] = await one.store.read_children(lock)
    await one.store.withdraw(f"{lock}/{seat}")
    one.candidacy.doubt()
    await one.candidacy.over()
    assert one.tenure.state is State.LOST


async def test_error_of_the_store_is_logged_and_seats_are_taken_anew(
    one: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign, errors = one.store.campaign, [StoreUnavailable("no")]

    async def fail_once(path: str, name: str) -> Fence:
        if errors:
            raise errors.pop()
        return await campaign(path, name)

    monkeypatch.setattr(one.store, "campaign", fail_once)
    monkeypatch.setattr(candidacy, "RETRY_S", 0.0)
    with capture_logs() as logs:
        await one.lead()
    assert logs[0]["event"] == "cannot stand for primary manager: trying again"


async def test_candidate_leads_without_a_seat_in_the_gems_lock_if_that_is_refused(
    one: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = one.store.campaign

    async def refuse(path: str, name: str) -> Fence:
        if path == PATHS.gem_lock:
            raise StoreError("no right")
        return await campaign(path, name)

    monkeypatch.setattr(one.store, "campaign", refuse)
    with capture_logs() as logs:
        await one.lead()
        await one.candidacy.leave()
        await one.candidacy.take_seats()
    assert [line["log_level"] for line in logs if line["event"].startswith("no seat")] == ["error"]


async def test_seat_in_the_gems_lock_is_left_also_while_the_second_is_waited_for(tree: MemTree) -> None:
    first, other = Candidate(tree, "m0"), Candidate(tree, "m1")
    await first.start()
    await other.start()
    await first.store.campaign(PATHS.lock, "m0")  # a manager of an earlier release
    standing = asyncio.create_task(other.candidacy.take_seats())
    await asyncio.sleep(0.01)
    standing.cancel()
    assert await other.store.read_children(PATHS.gem_lock)
    await other.candidacy.give_up()
    assert not await other.store.read_children(PATHS.gem_lock)


async def test_gems_manager_that_leads_is_logged_once_and_when_it_is_gone(one: Candidate, tree: MemTree) -> None:
    with capture_logs() as logs:
        gem = MemStore(tree)
        await gem.start()
        await gem.enlist(f"{PATHS.gem_lock}/ex", b"")
        await eventually(lambda: "gem leads: True" in one.calls)
        await gem.close()
        await eventually(lambda: len(logs) == 2)
    assert "node managers of redis_failover lead" in logs[0]["event"]
    assert logs[1]["event"] == "no node manager of redis_failover is there any more"
