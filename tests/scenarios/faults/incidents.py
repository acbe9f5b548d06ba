"""Things that happen to an installation under load; each ends with everything that was harmed running again.

An incident returns when there is a master, or when what it is about is over. `dice` decides what is left open.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from deploy.processes import Process
from rfprotocol.topology.topology import Node, Topology
from tests.scenarios.recorder import Recorder
from tests.support.installation import Installation
from tests.support.redis import RedisServer

Incident = Callable[["Scene"], Awaitable[None]]


class Scene:
    """What an incident may lay hands on."""

    def __init__(self, site: Installation, recorder: Recorder, dice: random.Random) -> None:
        self.site = site
        self.recorder = recorder
        self.dice = dice
        self.before: Topology
        self.at = 0.0  # when a master was harmed; seconds, monotonic

    async def begin(self) -> None:
        """Let the load go on for a moment, of a length that nobody expects."""
        self.before = await self.site.serving()
        await self.recorder.progress(self.dice.randrange(50, 250))
        self.at = time.monotonic()

    def kill(self, server: RedisServer) -> None:
        """SIGKILL to a master, or to who may be one by now."""
        server.kill()
        self.at = time.monotonic()

    @property
    def master(self) -> RedisServer:
        """The one in force when the incident began."""
        return self.site.server_of(self.before)

    def replica(self) -> RedisServer:
        """One of those in force when the incident began."""
        return self.site.group[self.dice.choice(self.before.replicas)]

    def proxy(self) -> Process:
        """One of the proxies."""
        return self.dice.choice(list(self.site.proxies.values()))

    def manager(self) -> Process:
        """One of the managers."""
        return self.dice.choice(self.site.managers)

    async def another_master(self) -> Node:
        """Who it is, when there is one."""
        topology = await self.site.serving(lambda topology: topology.master != self.before.master)
        assert topology.master is not None
        return topology.master

    async def another_epoch(self) -> None:
        """Return when a change has come to an end, with whatever master."""
        await self.site.serving(lambda topology: topology.epoch > self.before.epoch)

    async def moment(self) -> None:
        """Between nothing and 50 ms: to meet what is under way anywhere in it."""
        await asyncio.sleep(self.dice.uniform(0, 0.05))


async def master_killed(scene: Scene) -> None:
    """SIGKILL; it comes back empty when another one serves."""
    scene.kill(scene.master)
    await scene.another_master()
    scene.master.restart()


async def master_restarted_at_once(scene: Scene) -> None:
    """It comes back empty before anybody can have found out that it was gone."""
    scene.master.restart()
    await scene.another_master()


async def master_frozen(scene: Scene) -> None:
    """SIGSTOP, and SIGCONT when another one serves."""
    scene.master.freeze()
    await scene.another_master()
    scene.master.thaw()


async def switchover(scene: Scene) -> None:
    """An operator asks for another master."""
    done = await scene.site.command("failover")
    assert done.returncode == 0, done.stderr


async def switchover_of_a_dying_master(scene: Scene) -> None:
    """It is killed at any point of the change that an operator asked for."""
    asked = asyncio.create_task(scene.site.command("failover"))
    await scene.site.until(lambda topology: topology.epoch > scene.before.epoch)
    await scene.moment()
    scene.kill(scene.master)
    await scene.another_master()
    await asked
    scene.master.restart()


async def switchover_to_a_dying_replica(scene: Scene) -> None:
    """The target is killed at any point of the change."""
    target = scene.replica()
    asked = asyncio.create_task(scene.site.command("failover", "--to", str(target.node)))
    await scene.site.until(lambda topology: topology.epoch > scene.before.epoch)
    await scene.moment()
    scene.kill(target)
    await asked
    await scene.site.serving(lambda topology: topology.master != target.node)
    target.restart()


async def master_and_manager_killed(scene: Scene) -> None:
    """The primary manager, at any point of the failover."""
    primary = await scene.site.primary()
    scene.kill(scene.master)
    await scene.moment()
    primary.kill()
    await scene.another_master()
    primary.start()
    scene.master.restart()


async def master_killed_and_manager_frozen(scene: Scene) -> None:
    """The primary manager goes on when another one has done its work."""
    primary = await scene.site.primary()
    primary.freeze()
    scene.kill(scene.master)
    await scene.another_master()
    primary.thaw()
    scene.master.restart()


async def manager_killed(scene: Scene) -> None:
    """Any of them, and then the master."""
    manager = scene.manager()
    manager.kill()
    scene.kill(scene.master)
    await scene.another_master()
    manager.start()
    scene.master.restart()


async def master_and_proxy_killed(scene: Scene) -> None:
    """The clients of the proxy come back when it does."""
    proxy = scene.proxy()
    proxy.kill()
    scene.kill(scene.master)
    await scene.another_master()
    proxy.start()
    scene.master.restart()


async def master_killed_and_proxy_frozen(scene: Scene) -> None:
    """The change has to wait until that proxy cannot write any more, at most for its session."""
    proxy = scene.proxy()
    proxy.freeze()
    scene.kill(scene.master)
    await scene.another_master()
    proxy.thaw()
    scene.master.restart()


async def master_and_replica_killed(scene: Scene) -> None:
    """The replica first, so that the other one has what is acknowledged from then on."""
    replica = scene.replica()
    replica.kill()
    await scene.site.serving(lambda topology: replica.node not in topology.replicas)
    await scene.recorder.progress(50)
    scene.kill(scene.master)
    await scene.another_master()
    scene.master.restart()
    replica.restart()


INCIDENTS: tuple[Incident, ...] = (
    master_killed,
    master_restarted_at_once,
    master_frozen,
    switchover,
    switchover_of_a_dying_master,
    switchover_to_a_dying_replica,
    master_and_manager_killed,
    master_killed_and_manager_frozen,
    manager_killed,
    master_and_proxy_killed,
    master_killed_and_proxy_frozen,
    master_and_replica_killed,
)
