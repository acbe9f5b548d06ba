"""A model of Redis servers that replicate: roles, histories, offsets, restarts, partial and full transfers. Pure.

It follows Redis 7: promotion begins a new history and remembers the old one; REPLICAOF keeps data, history and offset;
a replica resumes where its master's history allows it, and is copied anew where not; a server that starts from an RDB
file remembers the history and the offset that the file was saved with, also as a master.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from rfprotocol.topology.topology import Node, NodeReport

ELSEWHERE = Node("elsewhere", 1)
"""The address of a master that is none of the group's servers."""


class Life(StrEnum):
    """What the process does."""

    RUNNING = "running"
    LOADING = "loading"  # its data, since its start
    FROZEN = "frozen"  # answers nobody, and goes on later as if nothing had been
    DEAD = "dead"


class Link(StrEnum):
    """How far a replica has come with its master."""

    DOWN = "down"
    COPYING = "copying"  # a full transfer arrives; the old data is still there
    REPLACING = "replacing"  # the old data is thrown away, the new one is loaded
    UP = "up"


class Start(StrEnum):
    """With what a process starts."""

    EMPTY = "empty"
    WHOLE = "whole"  # an RDB file of the last moment
    OLD = "old"  # an RDB file that lacks the last write
    STRANGE = "strange"  # data of which no history is known, as from an append-only file


@dataclass(frozen=True, slots=True)
class Server:
    """One Redis server. Writes are numbers; each counts one byte of the offset."""

    node: Node
    life: Life = Life.RUNNING
    starts: int = 1  # of processes at this address
    role: str = "master"
    follows: Node | None = None
    link: Link = Link.DOWN
    linked_to: str = ""  # the process at the other end of the link
    meant: str = ""  # the master's process when this server was told to follow it
    histories: int = 1  # that this server has begun
    replid: str = ""
    replid2: str = ""
    replid2_offset: int = -1
    offset: int = 0
    data: tuple[int, ...] = ()
    torn: bool = False  # the data is part of one transfer and part of nothing
    priority: int = 100
    isolated: bool = False  # no other server can be reached
    aof: bool = False  # it started from an append-only file
    release: int = 7  # an older server cannot load what a newer one sends in full
    refuses: bool = False  # commands of managers: their password was changed
    strange: bool = False  # its data was never this group's

    @property
    def run_id(self) -> str:
        """The process."""
        return f"{self.node.port}#{self.starts}"

    @property
    def obeys(self) -> bool:
        """Would it execute REPLICAOF?"""
        return self.life is Life.RUNNING and self.link is not Link.REPLACING and not self.refuses

    def report(self) -> NodeReport:
        """What INFO says."""
        slave = self.role == "slave"
        loading = self.life is Life.LOADING or self.link is Link.REPLACING
        return NodeReport(
            self.node,
            available=True,
            condition="loading" if loading else "ok",
            role=self.role,
            run_id=self.run_id,
            replid=self.replid,
            replid2=self.replid2,
            replid2_offset=self.replid2_offset,
            offset=-1 if slave and self.torn else self.offset,
            follows=self.follows,
            link_up=slave and self.link is Link.UP,
            syncing=self.link in (Link.COPYING, Link.REPLACING),
            priority=self.priority,
            empty=not self.data,
            aof=self.aof,
            keys=len(self.data),
            version=f"{self.release}.0.0",
        )

    def new_history(self) -> Server:
        """One that nobody else has."""
        histories = self.histories + 1
        return replace(self, histories=histories, replid=f"{self.node.port}/{histories}")

    def promoted(self) -> Server:
        """REPLICAOF NO ONE."""
        if self.role == "master":
            return self
        before = replace(self, role="master", follows=None, link=Link.DOWN, linked_to="")
        return replace(before.new_history(), replid2=self.replid, replid2_offset=self.offset + 1)

    def following(self, master: Node | None, process: str = "") -> Server:
        """REPLICAOF; None seals. Redis does nothing when it is told what it does already."""
        if self.role == "slave" and self.follows == master:
            return self
        return replace(self, role="slave", follows=master, link=Link.DOWN, linked_to="", meant=process)

    def restarted(self, start: Start) -> Server:
        """A new process, which is a master: nothing was rewritten in its configuration."""
        gone = 1 if start is Start.OLD and self.data else 0
        data = () if start is Start.EMPTY or self.torn else self.data[: len(self.data) - gone]
        remembers = start in (Start.WHOLE, Start.OLD) and not self.torn
        offset = self.offset - gone if remembers else 0
        fresh = Server(
            self.node,
            starts=self.starts + 1,
            histories=self.histories,
            replid2=self.replid if remembers else "",
            replid2_offset=offset + 1 if remembers else -1,
            offset=offset,
            data=data,
            priority=self.priority,
            isolated=self.isolated,
            release=self.release,
            aof=start is Start.STRANGE and not self.strange,  # one that was never seen at all cannot be told apart
            strange=self.strange and data != (),
        )
        return fresh.new_history()

    def replaced_by_a_stranger(self) -> Server:
        """Another server at this address: its data is that of others, and so is its history."""
        return replace(self.restarted(Start.EMPTY), offset=9, data=(-1, -2), strange=True)

    @property
    def has_data_of_others(self) -> bool:
        """Whether it has writes that no client of this group made."""
        return any(write < 0 for write in self.data)

    def restarted_as_replica(self, start: Start) -> Server:
        """The same with `replicaof 127.0.0.1 0` in the configuration: nobody's replica, which resumes where it was."""
        fresh = self.restarted(start)
        if fresh.replid2:
            fresh = replace(fresh, replid=self.replid, replid2="", replid2_offset=-1)
        return replace(fresh, role="slave")

    def written(self, write: int) -> Server:
        """A write was executed."""
        return replace(self, data=(*self.data, write), offset=self.offset + 1)

    def replicating(self, master: Server | None, at_length: bool) -> Server:
        """The link to the master makes one step.

        Data is not replaced by that of a process which this server was not told to follow, unless it is given long
        enough: managers are quicker than Redis' timers.
        """
        if master is None or not self._hears(master):
            return self._unlinked()
        match self.link:
            case Link.DOWN if self._resumes(master):
                return replace(self._resumed(master), link=Link.UP, linked_to=master.run_id)
            case Link.DOWN:
                return replace(self, link=Link.COPYING, linked_to=master.run_id)
            case Link.COPYING:
                begins = (self.meant == master.run_id or at_length) and master.release <= self.release
                return replace(self, link=Link.REPLACING, data=(), torn=True) if begins else self
            case Link.REPLACING:
                return self._copied(master)
            case Link.UP:
                return self._resumed(master) if self._resumes(master) else self._unlinked()

    def _hears(self, master: Server) -> bool:
        serves = master.life is Life.RUNNING and (master.role == "master" or master.link is Link.UP)
        connected = self.link is Link.DOWN or self.linked_to == master.run_id
        return serves and connected and not self.isolated and not master.isolated

    def _unlinked(self) -> Server:
        return self if self.link is Link.DOWN else replace(self, link=Link.DOWN, linked_to="")

    def _resumes(self, master: Server) -> bool:
        if self.torn or self.offset > master.offset:
            return False
        before = self.replid == master.replid2 and self.offset < master.replid2_offset
        return before or self.replid == master.replid

    def _resumed(self, master: Server) -> Server:
        if self.replid == master.replid and self.offset == master.offset:
            return self
        missing = master.offset - self.offset
        data = (*self.data, *master.data[len(master.data) - missing :]) if missing else self.data
        if self.replid == master.replid:
            return replace(self, data=data, offset=master.offset)
        ids = (master.replid, self.replid, self.offset + 1)
        return replace(self, data=data, offset=master.offset, replid=ids[0], replid2=ids[1], replid2_offset=ids[2])

    def _copied(self, master: Server) -> Server:
        return replace(
            self,
            link=Link.UP,
            data=master.data,
            offset=master.offset,
            torn=False,
            strange=False,
            replid=master.replid,
            replid2="",
            replid2_offset=-1,
        )


Servers = tuple[Server, ...]
"""All servers of a group, that on port n at n-1."""


def at(servers: Servers, node: Node | None) -> Server | None:
    """The one with that address."""
    if node is None or node.host != "h" or not 0 < node.port <= len(servers):
        return None
    return servers[node.port - 1]


def put(servers: Servers, server: Server) -> Servers:
    """The same group with this server changed."""
    port = server.node.port
    return (*servers[: port - 1], server, *servers[port:])


def replicated(servers: Servers, at_length: bool = False) -> Servers:
    """Every link makes one step, and who loads has loaded; `at_length` also those that take their time."""
    return tuple(
        replace(server, life=Life.RUNNING)
        if server.life is Life.LOADING
        else server.replicating(at(servers, server.follows), at_length)
        if server.role == "slave" and server.follows is not None and server.life is Life.RUNNING
        else server
        for server in servers
    )


def group(size: int) -> Servers:
    """A master on port 1 and its replicas, linked, with four writes in all of them."""
    nodes = [Node("h", port) for port in range(1, size + 1)]
    master = Server(nodes[0], replid="1/1", offset=4, data=(1, 2, 3, 4))
    replicas = [
        replace(
            master,
            node=node,
            role="slave",
            follows=nodes[0],
            link=Link.UP,
            linked_to=master.run_id,
            meant=master.run_id,
        )
        for node in nodes[1:]
    ]
    return (master, *replicas)
