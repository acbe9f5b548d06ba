"""What `bench.proxies` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tabulate import tabulate

from bench.peers import PEERS
from bench.records import Measurement, medians
from bench.targets import Verdict

_GROUPS: tuple[tuple[str, Callable[[Measurement], str]], ...] = (
    ("PROXY us", lambda seen: f"{seen.proxy:.2f}"),
    ("REDIS us", lambda seen: f"{seen.redis:.2f}"),
    ("1000/s", lambda seen: f"{seen.rate / 1000:.1f}"),
    ("P99 ms", lambda seen: f"{seen.p99:.2f}"),
)
_PROXIES = tuple(name for name in PEERS if name != "redis")


def overview(measurements: Iterable[Measurement]) -> str:
    """A line for each workload; for each figure, the medians of all systems side by side."""
    found = medians(measurements)
    systems = [name for name in PEERS if any(system == name for _, system in found)]
    columns = [
        (group, text, name)
        for group, text in _GROUPS
        for name in systems
        if group != "PROXY us" or name in _PROXIES  # Redis alone has none
    ]
    rows = [
        [workload, *(text(found[workload, name]) if (workload, name) in found else "" for _, text, name in columns)]
        for workload in dict.fromkeys(workload for workload, _ in found)
    ]
    return _table([(group, name) for group, _, name in columns], rows)


def judgement(verdicts: Sequence[Verdict]) -> str:
    """A line for each target, and how many hold."""
    rows = [
        [
            verdict.target.workload,
            verdict.target.title,
            f"<= {verdict.target.limit:.2f} {verdict.target.unit}",
            f"{verdict.median:.2f} {verdict.target.unit}",
            f"{min(verdict.figures):.2f} - {max(verdict.figures):.2f}",
            "holds" if verdict.holds else "DOES NOT HOLD",
        ]
        for verdict in verdicts
    ]
    headers = ["", "TARGET", "AT MOST", "MEDIAN", "ROUNDS", ""]
    return (
        tabulate(rows, headers, tablefmt="plain", disable_numparse=True)
        + f"\n\n{sum(verdict.holds for verdict in verdicts)} of {len(verdicts)} targets hold"
    )


def comparison(before: Iterable[Measurement], after: Iterable[Measurement]) -> str:
    """What the proxies cost then and now; that of the others tells how far the machine is another one today."""
    then, now = medians(before), medians(after)
    rows = [
        [
            workload,
            *(word for name in _PROXIES for word in _change(then.get((workload, name)), now.get((workload, name)))),
        ]
        for workload in dict.fromkeys(workload for workload, _ in now)
    ]
    return _table([(name, title) for name in _PROXIES for title in ("THEN us", "NOW us", "RATIO")], rows)


def _change(then: Measurement | None, now: Measurement | None) -> Sequence[str]:
    if then is None or now is None:
        return ("", "", "")
    return (f"{then.proxy:.2f}", f"{now.proxy:.2f}", f"{now.proxy / then.proxy:.2f}")


def _table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> str:
    """Headers in two lines: a group is named above its first column only."""
    groups = [group for group, _ in columns]
    headers = [
        f"{group if index == groups.index(group) else ''}\n{title}" for index, (group, title) in enumerate(columns)
    ]
    alignment = ["left", *["right"] * len(columns)]
    return tabulate(rows, ["", *headers], tablefmt="plain", disable_numparse=True, colalign=alignment)
