"""Which topology counts: the one in the store, or the one in force. Pure.

    equal                         no news: managers renew the record every few seconds
    a later epoch                 followed, and so is one of the gem that was made anew
    an older one of ours          not followed: the store was restored, or somebody wrote there. Writes wait, since
                                  managers may withdraw the master in an epoch that this proxy seems to have
                                  acknowledged long ago. They see what it has acknowledged, and publish the record
                                  anew with a greater epoch
    one of the gem                not followed at once: a manager of the gem was started by mistake, and ours take
                                  the record back. When it stays, the gem's managers lead, and it is followed. Until
                                  then writes go on while both name the same master

The gem is Ruby's redis_failover. Its records have no epoch, so each of them is older than any of ours.
"""

from __future__ import annotations

import math
from dataclasses import replace
from enum import Enum

from rfprotocol.topology.topology import Phase, Topology

GEM_STAYS = 10.0
"""Seconds that records of the gem stay before they are followed in place of a later epoch. The gem writes its record
every 5 s, so it has done that twice; ours take it back in milliseconds, or, when the primary manager has died with it,
when another one has been elected."""


class Verdict(Enum):
    """What becomes of the topology in force."""

    EQUAL = "it stays as it is: this is the same one"
    FOLLOW = "it is replaced"
    KEEP = "it stays in force for now"
    WITHDRAW = "its master is written to no more"


class Precedence:
    """Judges each record as it is read, within one session with the store: what it cannot see does not stay."""

    def __init__(self) -> None:
        self._gems_since = math.inf

    @property
    def due(self) -> float:
        """When a record of the gem that is there will have stayed; infinity when there is none to wait for."""
        return self._gems_since + GEM_STAYS

    def judge(self, topology: Topology, in_force: Topology | None, *, remade: bool, now: float) -> Verdict:
        """What to do about a record. `remade`: it was deleted and made anew, or is the first one."""
        older = in_force is not None and topology.epoch < in_force.epoch and not (remade and topology.is_gems)
        if not (older and topology.is_gems):
            self._gems_since = math.inf
        if topology == in_force:
            return Verdict.EQUAL
        if in_force is None or not older:
            return Verdict.FOLLOW
        if not topology.is_gems:
            return Verdict.WITHDRAW
        self._gems_since = min(self._gems_since, now)
        if now >= self.due:
            return Verdict.FOLLOW
        return Verdict.KEEP if topology.master == in_force.master else Verdict.WITHDRAW

    def forget(self) -> None:
        """What was waited for has come, or is gone."""
        self._gems_since = math.inf


def withdrawn(topology: Topology) -> Topology:
    """The same epoch without its master, as in an unplanned change: writes wait, reads go on from the replicas."""
    if topology.master is None and topology.phase is not Phase.DRAINING:
        return topology
    return _masterless(topology, Phase.FENCING)


def drained(topology: Topology) -> Topology:
    """The same as in a planned change: what is in flight may still be answered. Nobody has said that the master is
    lost, and no manager counts on this epoch's end."""
    return topology if topology.master is None else _masterless(topology, Phase.DRAINING)


def _masterless(topology: Topology, phase: Phase) -> Topology:
    lost = (topology.master,) if topology.master is not None else ()
    unavailable = (*lost, *(node for node in topology.unavailable if node not in lost))
    return replace(topology, phase=phase, master=None, unavailable=unavailable, change=None)
