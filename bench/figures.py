"""The tables and the picture of `bench.failover`."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from tabulate import tabulate

from bench.event import KINDS, Event, Kind, listed
from bench.seen import WRITES, milliseconds
from rfprotocol.topology.records import Receipt

BEFORE, AFTER = 1.0, 7.0
"""Seconds around an event that are drawn."""
_BUCKET = 0.05
_SERIES = (("reads", ("GET",), "#4c9f70"), ("writes", WRITES, "#2f6db5"))


def table(events: Sequence[Event]) -> str:
    """A line for each kind of event and each system."""
    rows = []
    for kind, system, seen in _grouped(events):
        writes, reads = [event.write_gap for event in seen], [event.read_gap for event in seen]
        errors = sum((event.errors for event in seen), Counter[str]())
        times = (statistics.median(writes), max(writes), statistics.median(reads), max(reads))
        in_flight = sum(len(event.in_flight) for event in seen)
        lost = sum(event.ledger.lost for event in seen)
        rows.append([kind.title, system, *map(milliseconds, times), lost, in_flight, listed(errors)])
    headers = ["", "", "NO WRITE FOR (MEDIAN)", "(WORST)", "NO READ FOR (MEDIAN)", "(WORST)", "LOST", "INCR IN FLIGHT"]
    alignment = [*["left"] * 2, *["right"] * 6]
    return tabulate(rows, [*headers, "ERRORS"], tablefmt="plain", disable_numparse=True, colalign=alignment)


def breakdown(events: Sequence[Event]) -> str:
    """The receipts of each kind of event: how long each step took, and what the proxies went through."""
    rows = []
    for kind, _, seen in _grouped(events):
        receipts = [event.receipt for event in seen if event.receipt]
        if receipts:
            rows.append([kind.title, *_medians(receipts)])
    return "\n\n".join(f"{title}\n    {steps}\n    {proxies}" for title, steps, proxies in rows)


def _medians(receipts: Sequence[Receipt]) -> tuple[str, str]:
    """The steps and the proxies of several receipts."""
    steps: defaultdict[str, list[float]] = defaultdict(list)
    for receipt in receipts:
        for (_, before), (name, at) in itertools.pairwise(receipt.steps):
            steps[name].append(at - before)
    told = [f"{name} {milliseconds(statistics.median(times))}" for name, times in steps.items()]
    total = milliseconds(statistics.median(receipt.duration for receipt in receipts))
    return f"{', '.join(told)}; in all {total}", _proxies(receipts)


def _proxies(receipts: Iterable[Receipt]) -> str:
    """What a proxy counted in one change, in the median, and the worst of it."""
    said = [said for receipt in receipts for said in receipt.proxies.values()]
    if not said:
        return "no proxy was heard of"
    counts = [f"{name} {statistics.median(each.get(name, 0) for each in said):g}" for name in ("held", "replayed")]
    uncertain = sum(each.get("uncertain", 0) for each in said)
    waits = [each.get("longest_wait", 0.0) for each in said]
    return (
        f"each proxy: {', '.join(counts)}, longest wait {milliseconds(statistics.median(waits))} "
        f"(worst {milliseconds(max(waits))}), {uncertain} uncertain in all"
    )


def _grouped(events: Sequence[Event]) -> Iterable[tuple[Kind, str, list[Event]]]:
    """By kind, in their order, then by system."""
    for kind in KINDS:
        for system in dict.fromkeys(event.system for event in events):
            if seen := [event for event in events if (event.kind, event.system) == (kind, system)]:
                yield kind, system, seen


def plot(events: Sequence[Event], path: Path) -> None:
    """Successes per 50 ms around each event: a row for each system, a column for each kind."""
    from matplotlib import pyplot  # noqa: PLC0415 - only whoever draws needs it

    systems = list(dict.fromkeys(event.system for event in events))
    kinds = [kind for kind in KINDS if any(event.kind == kind for event in events)]
    figure, axes = pyplot.subplots(
        len(systems), len(kinds), figsize=(3.3 * len(kinds), 2.2 * len(systems)), sharex=True, sharey=True,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for event in events:
        row, column = systems.index(event.system), kinds.index(event.kind)
        panel = axes[row][column]
        for label, commands, color in _SERIES:
            heights = _per_bucket(event, commands)
            moments = [_BUCKET * i - BEFORE for i in range(len(heights))]
            panel.step(moments, heights, where="post", label=label, color=color, lw=1)
        panel.axvline(0, color="#c0392b", lw=1, ls="--")
        panel.annotate(_told(event), (0.97, 0.95), xycoords="axes fraction", ha="right", va="top", fontsize=7)
        panel.set(xlim=(-BEFORE, AFTER), ylim=(0, 1.1 * event.whole.rate))
        if row == 0:
            panel.set_title(event.kind.title, fontsize=9)
        if row == len(systems) - 1:
            panel.set_xlabel("seconds")
        if column == 0:
            panel.set_ylabel(f"{event.system}\nsuccesses per second")
    axes[0][0].legend(loc="lower right", fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def _per_bucket(event: Event, commands: Iterable[str]) -> list[float]:
    """Successes per second, for as long as there was load."""
    after = min(AFTER, event.whole.until - event.at)
    counts = [0] * int((BEFORE + after) / _BUCKET)
    wanted = frozenset(commands)
    for operation in event.whole.operations:
        place = int((operation.ended - event.at + BEFORE) // _BUCKET)
        if not operation.error and operation.command in wanted and 0 <= place < len(counts):
            counts[place] += 1
    return [count / _BUCKET for count in counts]


def _told(event: Event) -> str:
    return (
        f"no write for {milliseconds(event.write_gap)}\nno read for {milliseconds(event.read_gap)}\n"
        f"errors: {listed(event.errors)}".replace(", ", ",\n")
    )
