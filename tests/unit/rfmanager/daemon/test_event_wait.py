import asyncio

from rfmanager.daemon.event_wait import wait_for


async def test_wait_ends_with_the_event() -> None:
    event = asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)
    await wait_for(event, None)


async def test_wait_ends_after_its_time_without_the_event() -> None:
    event = asyncio.Event()
    await wait_for(event, 0.0)
    assert not event.is_set()
