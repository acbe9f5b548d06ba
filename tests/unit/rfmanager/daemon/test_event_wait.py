import asyncio

import pytest

from rfmanager.daemon.event_wait import all_done, wait_for


async def test_wait_ends_with_the_event() -> None:
    event = asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)
    await wait_for(event, None)


async def test_wait_ends_after_its_time_without_the_event() -> None:
    event = asyncio.Event()
    await wait_for(event, 0.0)
    assert not event.is_set()


async def test_all_done__one_fails_as_the_caller_is_cancelled__is_cancelled() -> None:
    """A caller that tolerates the failure would go on, and nobody would cancel it again."""
    fails, begun, tolerated = asyncio.Event(), asyncio.Event(), False

    async def first() -> None:
        begun.set()
        await fails.wait()
        raise OSError

    async def work() -> None:
        nonlocal tolerated
        try:
            await all_done([asyncio.ensure_future(first()), asyncio.ensure_future(asyncio.sleep(3600.0))])
        except OSError:
            tolerated = True

    working = asyncio.create_task(work())
    await begun.wait()
    fails.set()
    await asyncio.sleep(0)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert not tolerated


async def test_all_done__one_fails__others_are_cancelled_and_it_is_raised() -> None:
    async def fails() -> None:
        raise OSError("refused")

    other = asyncio.ensure_future(asyncio.sleep(3600.0))
    with pytest.raises(OSError, match="refused"):
        await all_done([other, asyncio.ensure_future(fails())])
    assert other.cancelled()


async def test_all_done__all_end__returns() -> None:
    await all_done([asyncio.ensure_future(asyncio.sleep(0)), asyncio.ensure_future(asyncio.sleep(0))])
