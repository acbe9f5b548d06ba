"""The embedded mode: the manager runs inside the proxy, and both meet at a store in memory.

The one place where a program imports the other. It is for one host and one proxy: nobody else can see this store, so
nobody else may move the master role of these servers.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from rfmanager.daemon import Daemon, Settings
from rfmanager.detector import Limits
from rfmanager.redis_admin import Credentials
from rfprotocol.memstore import MemStore, MemTree
from rfprotocol.resolver import Resolver
from rfprotocol.store import TopologyStore
from rfproxy.config import ProxyConfig


class Embedded:
    """`async with Embedded(config, resolver) as store`: the manager runs, and `store` is the proxy's way to it.

    `task` is the manager. Whoever enters the block has to watch it: without it there are no failovers. `former`: user
    and password before a reload.
    """

    def __init__(
        self, config: ProxyConfig, resolver: Resolver | None = None, former: tuple[str, str] | None = None
    ) -> None:
        self._resolver = resolver
        password = config.password.get_secret_value() if config.password else None
        self._settings = Settings(
            nodes=config.nodes,
            root=config.znode_path,
            credentials=Credentials(config.username, password),
            password_file=config.password_file,
            former_credentials=Credentials(former[0] or None, former[1]) if former else None,
            limits=Limits(max_failures=config.max_failures),
        )

    async def __aenter__(self) -> TopologyStore:
        tree = MemTree(asyncio.Event)
        self._store = MemStore(tree)
        await self._store.start()
        self._daemon = Daemon(
            self._settings, self._store, "embedded", failpoint=lambda name: None, resolver=self._resolver
        )
        self.task = asyncio.create_task(self._daemon.run())
        return MemStore(tree)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._daemon.stop()
        await asyncio.wait([self.task])  # what it failed of, if it did, has been said
        await self._store.close()
