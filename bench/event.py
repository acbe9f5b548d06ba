"""What is done to a master, what clients saw of it, and what they should never have seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from bench.seen import WRITES, Ledger, Operation, Result, milliseconds
from bench.systems import System
from deploy.processes import Process, RedisServer
from rfprotocol.topology.records import Receipt


@dataclass(frozen=True, slots=True)
class Scene:
    """Where something happens: the system, its master and who leads it."""

    system: System
    master: RedisServer
    leader: Process

    def kill_both(self) -> None:
        """At the same moment, as nearly as two signals allow."""
        self.leader.kill()
        self.master.kill()

    def restart_both(self) -> None:
        """As a supervisor would."""
        self.leader.start()
        self.master.restart()


@dataclass(frozen=True, slots=True)
class Kind:
    """Something that happens to a master, and how that is undone. `doubt` is what clients may be told at worst."""

    title: str
    strike: Callable[[Scene], object]
    heal: Callable[[Scene], object]
    doubt: str = "UNCERTAIN"


KINDS = (
    Kind("master killed (SIGKILL)", lambda scene: scene.master.kill(), lambda scene: scene.master.restart()),
    Kind("master frozen (SIGSTOP)", lambda scene: scene.master.freeze(), lambda scene: scene.master.thaw()),
    Kind("master and primary manager killed", Scene.kill_both, Scene.restart_both),
    Kind("planned switchover", lambda scene: scene.system.switch_over(), lambda _: None, doubt=""),
)


@dataclass(frozen=True, slots=True)
class Event:
    """What was done at a moment of the monotonic clock, and what clients saw around it."""

    system: str
    kind: Kind
    at: float
    whole: Result  # with the undisturbed load before it
    receipt: Receipt | None = None

    @property
    def seen(self) -> Result:
        """What clients saw from then on until everything had been in order for a while."""
        return self.whole.between(self.at, self.whole.until)

    @property
    def ledger(self) -> Ledger:
        """Of all writes of this load."""
        return self.whole.ledger or Ledger()

    @property
    def write_gap(self) -> float:
        """Seconds without a successful write of any client."""
        return self.seen.gap(WRITES).seconds

    @property
    def read_gap(self) -> float:
        """Seconds without a successful read of any client."""
        return self.seen.gap(["GET"]).seconds

    @property
    def errors(self) -> Counter[str]:
        """How often each error came."""
        return Counter(operation.error for operation in self.seen.operations if operation.error)

    @property
    def in_flight(self) -> list[Operation]:
        """Writes that must not be sent twice, without an answer when it happened or while no write succeeded."""
        gap = self.seen.gap(WRITES)
        return [o for o in self.seen.operations if o.command == "INCR" and o.begun <= gap.begun + gap.seconds]

    def __str__(self) -> str:
        return (
            f"{self.system}, {self.kind.title}: no write for {milliseconds(self.write_gap)}, "
            f"no read for {milliseconds(self.read_gap)}, one client waited {milliseconds(self.seen.slowest())}, "
            f"{self.ledger.lost} lost, errors: {listed(self.errors)}  ({self.whole.rate:.0f}/s)"
        )


def listed(errors: Counter[str]) -> str:
    """Errors in words."""
    return ", ".join(f"{count} {error}" for error, count in errors.most_common()) or "none"


def faults(event: Event) -> list[str]:
    """What clients of the proxies must never see: the promises that the benchmark checks while it measures."""
    found = [f"{event.ledger.doubled} writes applied twice"] if event.ledger.doubled else []
    strange = Counter(error for error in event.errors.elements() if error != event.kind.doubt)
    if strange:
        found.append(f"errors: {listed(strange)}")
    justified = set(event.in_flight)
    if commands := Counter(o.command for o in event.seen.operations if o.error and o not in justified):
        found.append(f"{listed(commands)} answered with an error that were not in flight, or may be sent again")
    if not event.kind.doubt and event.ledger.lost:
        found.append(f"{event.ledger.lost} acknowledged writes lost")
    return found
