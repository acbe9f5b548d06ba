"""The smaller records in the store: a proxy's acknowledgement, a receipt, an operator's request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any

from rfprotocol.errors import ConfigError, RecordError
from rfprotocol.topology.topology import FORMAT, Kind, Node, like, load_record, optional_node, whole_number


@dataclass(frozen=True, slots=True)
class Occupation:
    """Why a server is silent, as far as a proxy knows: it was sent a command that may take long."""

    command: str  # its name, such as FLUSHALL
    since: float = 0.0  # seconds that the server had been silent when the proxy wrote this


@dataclass(frozen=True, slots=True)
class ProxyRecord:
    """What one proxy says of itself; `epoch` is the newest topology it acts upon.

    A proxy that has acknowledged an epoch sends nothing to a master of an earlier one.
    """

    epoch: int
    address: str = ""
    version: str = ""
    clients: int = 0
    held: int = 0  # commands that waited for a master during the last change
    replayed: int = 0  # commands sent again
    uncertain: int = 0  # commands answered -UNCERTAIN
    longest_wait: float = 0.0  # seconds
    account: str = ""  # what is wrong with the proxy's own account, for each server; empty when it serves
    busy: Mapping[str, Occupation] = field(default_factory=dict)  # servers (`host:port`) that are silent for a reason

    def encode(self) -> bytes:
        """JSON for `proxies/<id>`."""
        return json.dumps({"format": FORMAT, **asdict(self)}).encode()

    @classmethod
    def decode(cls, data: bytes) -> ProxyRecord:
        """Raises RecordError."""
        record = load_record(data, "proxy")
        known = {spec.name: record[spec.name] for spec in fields(cls) if spec.name in record}
        try:
            whole_number(known.get("epoch"))
            known["busy"] = _occupations(known.get("busy"))
            for spec in fields(cls)[1:]:
                if spec.name != "busy" and not like(known.get(spec.name, spec.default), spec.default):
                    raise TypeError(f"{spec.name} is {known[spec.name]!r}")
            return cls(**known)
        except TypeError as error:
            raise RecordError(f"the record of a proxy cannot be read: {error}") from None


def _occupations(said: Any) -> Mapping[str, Occupation]:
    """What can be read of it. It may only grant a server more time, so nothing else must fail for its sake."""
    return {
        node: Occupation(what["command"], float(what["since"]))
        for node, what in (said.items() if isinstance(said, dict) else ())
        if isinstance(what, dict) and like(what.get("command"), "") and like(what.get("since"), 0.0)
    }


class Outcome(Enum):
    """How an attempt to change the master ended."""

    DONE = "done"
    ABORTED = "aborted"  # begun and undone: the former master serves again, or is lost, too
    REFUSED = "refused"  # never begun


@dataclass(frozen=True, slots=True)
class Receipt:
    """What happened in one change of master, for people: kept below `history/`."""

    epoch: int
    kind: Kind
    outcome: Outcome
    cause: str
    former: Node | None = None
    master: Node | None = None
    manager: str = ""
    steps: tuple[tuple[str, float], ...] = ()  # name, wall clock in seconds
    acknowledged: Mapping[str, float] = field(default_factory=dict)  # when the manager saw each proxy do so, wall clock
    offsets: Mapping[str, int] = field(default_factory=dict)  # of each server when the choice was made
    proxies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # what each proxy said of it
    request: int = 0  # the operator's request it answers: `Entry.created` of its record; 0: none, or not known
    lost: str = ""  # the condition of the former master that made it unavailable, as in a report
    run_id: str = ""  # of the former master's process
    returned: float | None = None  # seconds after the change that this process answered again: a false alarm

    @property
    def ended(self) -> float:
        """Wall clock of the last step; 0 when there were none."""
        return self.steps[-1][1] if self.steps else 0.0

    @property
    def false_alarm(self) -> bool:
        """Was the former master alive, though it did not answer?"""
        return self.returned is not None

    @property
    def duration(self) -> float:
        """Seconds from the first step to the last; 0 when there were none."""
        return self.steps[-1][1] - self.steps[0][1] if self.steps else 0.0

    def encode(self) -> bytes:
        """JSON for `history/<epoch>`."""
        return json.dumps(
            {
                "format": FORMAT,
                "epoch": self.epoch,
                "kind": self.kind.value,
                "outcome": self.outcome.value,
                "cause": self.cause,
                "former": str(self.former) if self.former else None,
                "master": str(self.master) if self.master else None,
                "manager": self.manager,
                "steps": [[name, at] for name, at in self.steps],
                "acknowledged": dict(self.acknowledged),
                "offsets": dict(self.offsets),
                "proxies": {name: dict(said) for name, said in self.proxies.items()},
                "request": self.request,
                "lost": self.lost,
                "run_id": self.run_id,
                "returned": self.returned,
            }
        ).encode()

    @classmethod
    def decode(cls, data: bytes) -> Receipt:
        """Raises RecordError."""
        record = load_record(data, "receipt")
        try:
            return cls(
                epoch=whole_number(record["epoch"]),
                kind=Kind(record["kind"]),
                outcome=Outcome(record["outcome"]),
                cause=str(record["cause"]),
                former=optional_node(record.get("former")),
                master=optional_node(record.get("master")),
                manager=str(record.get("manager", "")),
                steps=tuple((str(name), float(at)) for name, at in record.get("steps", ())),
                acknowledged={str(k): float(v) for k, v in record.get("acknowledged", {}).items()},
                offsets={str(k): int(v) for k, v in record.get("offsets", {}).items()},
                proxies={str(k): dict(v) for k, v in record.get("proxies", {}).items()},
                request=whole_number(record.get("request", 0)),
                lost=str(record.get("lost", "")),
                run_id=str(record.get("run_id", "")),
                returned=None if (returned := record.get("returned")) is None else float(returned),
            )
        except (KeyError, ValueError, TypeError, AttributeError, ConfigError) as error:
            raise RecordError(f"a receipt cannot be read: {error}") from None


ANY_REPLICA = "ANY_SLAVE"


@dataclass(frozen=True, slots=True)
class ManualRequest:
    """An operator's wish for another master; `target` None leaves the choice to the managers."""

    target: Node | None

    def encode(self) -> bytes:
        """The gem's form: `ANY_SLAVE` or `host:port`."""
        return (str(self.target) if self.target else ANY_REPLICA).encode()

    @classmethod
    def decode(cls, data: bytes) -> ManualRequest | None:
        """None for an empty record, which the gem creates a moment before it fills it. Raises RecordError."""
        text = data.decode(errors="replace").strip()
        if not text:
            return None
        if text == ANY_REPLICA:
            return cls(None)
        try:
            return cls(Node.parse(text))
        except ConfigError as error:
            raise RecordError(f"the request for a manual failover cannot be read: {error}") from None
