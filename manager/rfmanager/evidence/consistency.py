"""Do the managers suffice, are they told the same, and do they look at as many servers as they believe? Pure.

Only this system's managers are judged: node managers of the gem are not told these options, and do not count to them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rfprotocol.topology.topology import ManagerReport, Node


def complaints(managers: Mapping[str, ManagerReport], primary: str = "") -> list[str]:
    """All that is wrong with the managers as a whole, a sentence each, what matters most first."""
    few = too_few(managers, primary)
    return [*([few] if few else []), *disagreements(managers, primary), *doubles(managers)]


def too_few(managers: Mapping[str, ManagerReport], primary: str = "") -> str:
    """Fewer report than have to; empty when they suffice. Those of earlier releases do not say how many have to."""
    if not managers:
        return "no manager reports: nobody is promoted"
    ours = [report for report in managers.values() if not report.is_gems]
    leads = managers.get(primary)
    required = leads.required if leads else max((report.required for report in ours), default=0)
    if len(ours) >= required:
        return ""
    return f"{len(ours)} of {required} required managers report: nobody is promoted; start the others"


def disagreements(managers: Mapping[str, ManagerReport], primary: str = "") -> list[str]:
    """What managers were told differently that all of them must be told alike."""
    said = {name: report for name, report in sorted(managers.items()) if report.required}
    options = {
        "--required-node-managers": {name: str(report.required) for name, report in said.items()},
        "--node-strategy": {name: report.strategy for name, report in said.items()},
    }
    lines = [_differing(option, values) for option, values in options.items() if len(set(values.values())) > 1]
    listed = {name: frozenset(report.configured) for name, report in said.items() if report.configured is not None}
    return lines + _other_servers(listed, primary)


def _differing(option: str, values: Mapping[str, str]) -> str:
    by_value = _by(values)
    told = "; ".join(f"{value} ({', '.join(names)})" for value, names in sorted(by_value.items()))
    return f"the managers have different values of {option}: {told}"


def _other_servers(listed: Mapping[str, frozenset[Node]], primary: str) -> list[str]:
    """The majority counts as right, else the primary manager: that is a matter of words only."""
    by_list = _by(listed)
    if len(by_list) < 2:
        return []
    usual = max(by_list, key=lambda nodes: (len(by_list[nodes]), primary in by_list[nodes]))
    lines = []
    for nodes, names in by_list.items():
        parts = {"lacking": usual - nodes, "additional": nodes - usual}
        if nodes != usual:
            said = ", ".join(f"{what} {_listing(some)}" for what, some in parts.items() if some)
            whose = f"manager{'s' if len(names) > 1 else ''} {', '.join(names)}"
            lines.append(f"{whose}: other servers than {', '.join(by_list[usual])} (option --nodes): {said}")
    return lines


def doubles(managers: Mapping[str, ManagerReport]) -> list[str]:
    """Servers that are listed under several addresses, each with what to do."""
    return [
        f"{_listing(nodes, ' and ')} are one server (run id {run_id[:8]}): name it alike in the options of all managers"
        for run_id, nodes in same_process(managers).items()
    ]


def same_process(managers: Mapping[str, ManagerReport]) -> Mapping[str, Sequence[Node]]:
    """By run id the addresses behind which one process answers."""
    nodes: defaultdict[str, set[Node]] = defaultdict(set)
    for report in managers.values():
        for seen in report.nodes:
            if seen.available and seen.run_id:
                nodes[seen.run_id].add(seen.node)
    # A process that changed its address is reported under both for a moment, by different managers.
    return {
        run_id: sorted(several)
        for run_id, several in sorted(nodes.items())
        if len(several) > 1 and any(_sees_all(report, run_id, several) for report in managers.values())
    }


def _sees_all(report: ManagerReport, run_id: str, nodes: set[Node]) -> bool:
    return len({seen.node for seen in report.nodes if seen.available and seen.run_id == run_id} & nodes) > 1


def _by(values: Mapping[str, Any]) -> dict[Any, list[str]]:
    names: defaultdict[Any, list[str]] = defaultdict(list)
    for name, value in values.items():
        names[value].append(name)
    return names


def _listing(nodes: Iterable[Node], between: str = ", ") -> str:
    return between.join(map(str, sorted(nodes)))
