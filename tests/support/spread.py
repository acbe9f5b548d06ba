"""An installation of which every process lives on a host of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from deploy.processes import Process
from tests.support.hosts import Host, Network
from tests.support.installation import Installation
from tests.support.redis import RedisGroup, RedisServer
from tests.support.relay import Relay
from tests.support.zookeeper import ZooKeeperEnsemble, ZooKeeperServer


class Spread(Installation):
    """Three servers, three managers of which two have to agree, proxies, and the ensemble in `ensemble`.

    Clients are as near to each proxy as can be: they reach it whatever happens to the network.
    """

    def __init__(
        self, network: Network, group: RedisGroup, ensemble: ZooKeeperEnsemble, folder: Path, *, proxies: int = 2
    ) -> None:
        super().__init__(group, ensemble.hosts, folder, proxies=proxies)
        self.network = network
        self.ensemble = ensemble
        self._relays: list[Relay] = []
        self._stack = contextlib.AsyncExitStack()
        for manager in self.managers:
            network.host().take(manager)
        for port, proxy in self.proxies.items():
            host = network.host()
            host.take(proxy)
            proxy.argv += ["--listen", f"{host.address}:{port}"]
            self._relays.append(Relay(host.address, port, port=port))

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            for relay in self._relays:
                await stack.enter_async_context(relay)
            await super().__aenter__()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exception: object) -> None:
        async with self._stack:
            await super().__aexit__(*exception)

    def host_of(self, inhabitant: Process | RedisServer | ZooKeeperServer) -> Host:
        """Where it lives."""
        return self.network.host_of(inhabitant if isinstance(inhabitant, Process) else inhabitant.process)


@contextlib.contextmanager
def spread(folder: Path, *, zookeepers: int = 1) -> Iterator[Spread]:
    """An installation whose servers run, in a network of its own."""
    with Network() as network, _servers(network) as group, _ensemble(network, zookeepers, folder) as ensemble:
        yield Spread(network, group, ensemble, folder)


def _servers(network: Network, size: int = 3) -> RedisGroup:
    group = RedisGroup(0)
    for number in range(1, size + 1):
        host = network.host()
        server = RedisServer(
            bind=host.address, port=6379, folder=group.folder / f"server-{number}", protected_mode="no"
        )
        host.take(server.process)
        group.servers.append(server)
    return group


def _ensemble(network: Network, size: int, folder: Path) -> ZooKeeperEnsemble:
    ensemble = ZooKeeperEnsemble(0, folder)
    hosts = {number: network.host() for number in range(1, size + 1)}
    peers = [f"server.{number}={host.address}:2888:3888" for number, host in hosts.items()] if size > 1 else []
    for number, host in hosts.items():
        server = ZooKeeperServer(
            folder / f"zookeeper{number}", number=number, address=host.address, port=2181, peers=peers
        )
        host.take(server.process)
        ensemble.servers.append(server)
    return ensemble
