"""What does not hold while a group moves from Ruby's redis_failover, the gem, to this system or back. Pure.

    gem leads ----------> nobody leads -------------> rfmanager leads
    gem's record          gem's record                its own record
    not fenced            no master is replaced       fenced

`status` prints each finding as one line of trouble, `doctor` prints it with its severity. A record that went back is
among them: the gem writes records without an epoch, but a restored or wiped ZooKeeper does the same to a group.
"""

from __future__ import annotations

from collections.abc import Iterator

from rfmanager.operator.doctor_facts import Finding, Severity
from rfmanager.operator.snapshot import Snapshot

GEM = "Ruby's redis_failover"

_NOT_FENCED = "changes of master are not fenced: a deposed master may acknowledge writes that are lost"


def findings(snapshot: Snapshot) -> list[Finding]:
    """All of them, what matters most first."""
    return [*_of_the_gems_managers(snapshot), *_of_the_gems_record(snapshot), *_of_a_record_that_went_back(snapshot)]


def line(finding: Finding) -> str:
    """A finding as one line."""
    return f"{finding.what}: {finding.why}; {finding.line}"


def gems_managers(snapshot: Snapshot) -> str:
    """The gem's node managers, with the names under which they report."""
    names = f" ({', '.join(snapshot.gems)})" if snapshot.gems else ""
    return f"node managers of {GEM}{names}"


def _of_the_gems_managers(snapshot: Snapshot) -> Iterator[Finding]:
    if snapshot.gem_leads and snapshot.primary:
        what = f"{gems_managers(snapshot)} and the primary manager {snapshot.primary} lead at the same time"
        why = "each changes the master without the other, so acknowledged writes may be lost"
        todo = "stop every redis_node_manager; if that manager is of an earlier release, upgrade it, too"
        yield Finding(Severity.UNSAFE, None, what, why, todo)
    elif snapshot.gem_leads:
        what = f"{gems_managers(snapshot)} lead"
        why = f"rfmanager does nothing until they are stopped, and {_NOT_FENCED}"
        then = "an rfmanager takes over by itself" if snapshot.ours else "start rfmanager"
        yield Finding(Severity.UNSAFE, None, what, why, f"stop every redis_node_manager, then {then}")
    elif snapshot.gem_waits or snapshot.gems:
        what = f"{gems_managers(snapshot)} {'wait in line' if snapshot.gem_waits else 'run'} beside rfmanager"
        why = "when no rfmanager leads they take over, and what they do is not fenced"
        yield Finding(Severity.WARNING, None, what, why, "stop every redis_node_manager")


def _of_the_gems_record(snapshot: Snapshot) -> Iterator[Finding]:
    if snapshot.topology is None or not snapshot.topology.is_gems or snapshot.gem_leads:
        return
    what = f"the record was written by {GEM}, and no rfmanager has adopted it"
    why = f"until then a lost master may not be replaced, and {_NOT_FENCED}"
    todo = _who_mends(snapshot, "adopts it when the servers agree on one master")
    yield Finding(Severity.UNSAFE, None, what, why, todo)


def _of_a_record_that_went_back(snapshot: Snapshot) -> Iterator[Finding]:
    gone = snapshot.gone_back
    if gone is None:
        return
    others = f" and {gone.others} other{'s' if gone.others > 1 else ''}" if gone.others else ""
    acknowledged = f"proxy {gone.proxy}{others} acknowledged up to epoch {gone.epoch}"
    if snapshot.topology is None:
        what = f"the record is gone, and {acknowledged}"
        why = "writes wait until there is one"
    else:
        what = f"the record went back to epoch {snapshot.epoch}, and {acknowledged}"
        why = "these proxies do not act upon it, and their writes may wait"
    yield Finding(Severity.UNSAFE, None, what, why, _who_mends(snapshot, "publishes it anew by itself"))


def _who_mends(snapshot: Snapshot, does: str) -> str:
    """What becomes of it, or what to do."""
    if snapshot.gem_leads:
        return "wait: a record of the node managers that has stayed for 10 s is accepted"
    if snapshot.primary and snapshot.pause:
        return f"'rfmanager resume', then the primary manager {snapshot.primary} {does}"
    if snapshot.primary:
        return f"the primary manager {snapshot.primary} {does}; its log says why if this stays"
    if snapshot.ours:
        return f"no manager leads, the managers' logs say why; the one that does {does}"
    return f"start rfmanager: the primary manager {does}"
