"""Job queues on top of the client libraries, with a failover while jobs are added and worked on.

Their programs play two roles: `work` prints `message <number>` for every job that it runs, and `enqueue` adds numbered
jobs at a high rate; its outcome names those that were acknowledged, and the errors that it was given for the others.
"""

from __future__ import annotations

import contextlib
from collections import Counter

import pytest

from tests.clients.place import Change, Place
from tests.clients.player import Failed, Player
from tests.clients.programs import node, python, script

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUEUES = {"rq": python("rq_jobs"), "bullmq": node("jobs.js"), "sidekiq": script("ruby/jobs.rb")}


async def run_to_the_end(stage: contextlib.AsyncExitStack, worker: Player, last: str, *, planned: bool) -> list[str]:
    """The jobs that were run until the `last` one was.

    A worker may quit over its own step that was in flight at a killed master, and has become uncertain. Operators have
    it started again.
    """
    try:
        await worker.heard(last)
    except Failed as failure:
        if planned or "UNCERTAIN" not in str(failure):
            raise
        successor = await stage.enter_async_context(Player(worker.words))
        await successor.heard(last)
        return [*worker.messages, *successor.messages]
    return worker.messages


@pytest.mark.parametrize("queue", QUEUES)
async def test_every_job_that_was_accepted_is_run_once(site: Place, change: Change, queue: str) -> None:
    name = f"{queue}-{change.__name__}"
    planned = change is Place.switch_over
    async with contextlib.AsyncExitStack() as stage:
        worker = await stage.enter_async_context(Player([*QUEUES[queue], str(site.port), "work", name]))
        source = await stage.enter_async_context(Player([*QUEUES[queue], str(site.port), "enqueue", name]))
        await source.ready()
        await worker.heard("0")
        await change(site)
        source.go_on()
        outcome = await source.outcome()
        acknowledged, errors = outcome["acknowledged"], outcome["errors"]
        assert all(error.startswith("UNCERTAIN ") for error in errors)
        assert len(errors) <= (0 if planned else 1)
        ran = await run_to_the_end(stage, worker, str(acknowledged[-1]), planned=planned)
        runs = Counter(map(int, ran))
        amiss = {number: runs[number] for number in acknowledged if runs[number] != 1}
        # A killed master takes the reply to the worker's last step with it. If it was uncertain, its job has run twice
        # or not at all; if it was a BRPOP, it is asked again, and what it had taken is gone, as on a plain Redis.
        assert len(amiss) <= (0 if planned else 1), amiss
        assert len(runs.keys() - set(acknowledged)) <= len(errors)
