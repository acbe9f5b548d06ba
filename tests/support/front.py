"""The proxy's own server in the test's event loop, in front of one real Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from rfprotocol.topology.topology import Node, Phase, Topology
from rfproxy.core.policy import Policy
from rfproxy.process.listen_sockets import address_of, open_sockets
from rfproxy.runtime.client_limits import Limits
from rfproxy.runtime.server import Server
from tests.support.playbook import SilentLog

ANY_PORT = Node("127.0.0.1", 0)


class Front:
    """A listening server, and what it logged."""

    def __init__(self, limits: Limits, policy: Policy) -> None:
        self.log = SilentLog()
        self.server = Server(policy, limits=limits, log=self.log)
        self.address = ANY_PORT

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """One more client."""
        return await asyncio.open_connection(self.address.host, self.address.port)


@contextlib.asynccontextmanager
async def fronting(
    master: Node,
    limits: Limits | None = None,
    listen: Node = ANY_PORT,
    *,
    policy: Policy | None = None,
    run_id: str = "",
) -> AsyncIterator[Front]:
    """A proxy in front of one master, whose word it takes for ever; of no other process than `run_id`, if given."""
    front = Front(limits or Limits(), policy or Policy())
    server = front.server
    server.lease.renew(server.now(), 1e9)
    server.router.apply(Topology(1, Phase.SERVING, master, run_id=run_id), server.now())
    sockets = open_sockets(listen)
    front.address = address_of(sockets[0])
    await server.listen(sockets)
    try:
        yield front
    finally:
        await server.drain(5.0)
