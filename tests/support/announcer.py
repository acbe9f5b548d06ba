"""A program that announces a record, says so, and prints each state of its store, to be frozen from outside."""

from __future__ import annotations

import asyncio
import sys

import structlog

from rfprotocol.store.interface import StoreState
from rfprotocol.store.zookeeper import ZkStore


async def main(hosts: str) -> None:
    store = ZkStore(hosts, session_timeout=3.0)
    connected = asyncio.Event()

    def told(state: StoreState) -> None:
        print(state.value, flush=True)
        if state is StoreState.CONNECTED:
            connected.set()

    store.subscribe(told)
    await store.start()
    await connected.wait()
    await store.announce("/announced", b"")
    print("announced", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(sys.argv[1]))
