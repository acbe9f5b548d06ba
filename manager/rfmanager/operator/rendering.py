"""What the operators' commands print: tables for people, JSON for programs. Pure."""

from __future__ import annotations

import itertools
import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from tabulate import tabulate

from rfmanager.evidence.consistency import complaints, too_few
from rfmanager.evidence.false_alarms import Brake
from rfmanager.evidence.last_known import holding
from rfmanager.evidence.versions import can_copy, named, shown
from rfmanager.monitoring import conditions
from rfmanager.monitoring.failure_detector import UNLINKED
from rfmanager.operator import migration
from rfmanager.operator.doctor import UNSEEN
from rfmanager.operator.doctor_facts import Finding
from rfmanager.operator.snapshot import Pause, Server, Snapshot
from rfprotocol.topology.records import ManualRequest, Outcome, ProxyRecord, Receipt
from rfprotocol.topology.topology import ManagerReport, NodeReport, Topology

_SERVERS = ("SERVER", "LISTED AS", "ROLE", "CONDITION", "OFFSET", "LAG", "VERSION", "UP FOR")
_MANAGERS = ("MANAGER", "ROLE", "SERVERS UP")
_PROXIES = ("PROXY", "ADDRESS", "EPOCH", "CLIENTS", "HELD*", "REPLAYED*", "UNCERTAIN*", "LONGEST WAIT*")
_HISTORY = ("EPOCH", "BEGAN", "KIND", "OUTCOME", "FROM", "TO", "TOOK", "CAUSE")

_ROLES = {"master": "master", "slave": "replica"}
_NOT_SAID = f"is unavailable, and node managers of {migration.GEM} do not say why"


def status_text(snapshot: Snapshot) -> str:
    """The state of the group on one screen."""
    parts = [_pairs(_summary(snapshot))]
    if servers := snapshot.servers:
        parts.append(_table(_SERVERS, map(_row, servers)))
    if managers := sorted(snapshot.managers.items()):
        parts.append(_table(_MANAGERS, (_manager_row(name, manager, snapshot) for name, manager in managers)))
    if proxies := sorted(snapshot.proxies.items()):
        parts.append(_table(_PROXIES, (_proxy_row(name, proxy, snapshot.epoch) for name, proxy in proxies)))
        parts.append("* during the last change of master")
    return "\n\n".join(parts)


def status_json(snapshot: Snapshot) -> str:
    """The same as one JSON object. Offsets and lag are bytes, times are seconds."""
    topology = snapshot.topology
    return _json(
        {
            "epoch": topology.epoch if topology else None,
            "phase": topology.phase.value if topology else None,
            "master": str(topology.master) if topology and topology.master else None,
            "change": _plain_change(topology),
            "primary": snapshot.primary or None,
            "paused": {"by": snapshot.pause.by, "at": snapshot.pause.at} if snapshot.pause else None,
            "request": snapshot.request.encode().decode() if snapshot.request else None,
            "request_state": _request_state(snapshot) or None,
            "gem": {
                "leads": snapshot.gem_leads,
                "waits": snapshot.gem_waits,
                "managers": snapshot.gems,
                "record": snapshot.topology is not None and snapshot.topology.is_gems,
            },
            "gone_back": asdict(snapshot.gone_back) if snapshot.gone_back else None,
            "unreadable": dict(snapshot.unreadable),
            "trouble": troubles(snapshot),
            "slowed_down": asdict(snapshot.brake) if snapshot.brake.on else None,
            "waits_for": _waits_for(snapshot) or None,
            "servers": [_plain_server(server, snapshot) for server in snapshot.servers],
            "managers": [_plain_manager(name, snapshot) for name in sorted(snapshot.managers)],
            "proxies": [
                {"name": name, **json.loads(proxy.encode())} for name, proxy in sorted(snapshot.proxies.items())
            ],
        }
    )


def history_text(receipts: Sequence[Receipt]) -> str:
    """One line per change of master, in the order given."""
    if not receipts:
        return "no change of master is on record"
    rows = (
        (
            receipt.epoch,
            moment(receipt.steps[0][1]) if receipt.steps else "-",
            receipt.kind.value,
            f"{receipt.outcome.value}, false alarm" if receipt.false_alarm else receipt.outcome.value,
            receipt.former or "-",
            receipt.master or "-",
            _duration(receipt),
            receipt.cause,
        )
        for receipt in receipts
    )
    return _table(_HISTORY, rows)


def history_json(receipts: Sequence[Receipt]) -> str:
    """The receipts as they are in the store, as a JSON list."""
    return _json([json.loads(receipt.encode()) for receipt in receipts])


def receipt_text(receipt: Receipt) -> str:
    """Everything that is known about one change of master."""
    began = receipt.steps[0][1] if receipt.steps else 0.0
    rows = [
        (receipt.kind.value, f"{receipt.outcome.value}, epoch {receipt.epoch}"),
        *_masters(receipt),
        ("cause", receipt.cause),
        ("false alarm", _false_alarm(receipt)),
        ("began", moment(began) if receipt.steps else ""),
        ("took", _duration(receipt) if receipt.steps else ""),
        ("steps", _steps(receipt)),
        ("offsets", _facts(receipt.offsets)),
        (
            "proxies",
            "; ".join(_proxy_said(receipt, name) for name in sorted({*receipt.acknowledged, *receipt.proxies})),
        ),
        ("manager", receipt.manager),
    ]
    return _pairs(rows)


def _false_alarm(receipt: Receipt) -> str:
    if receipt.returned is None:
        return ""
    return f"{receipt.former} was alive: the same process answered again {receipt.returned:.1f} s after the change"


def _steps(receipt: Receipt) -> str:
    """Each with the milliseconds since the one before."""
    first = [name for name, _ in receipt.steps[:1]]
    pairs = itertools.pairwise(receipt.steps)
    return ", ".join([*first, *(f"+{_ms(at - before)} {name}" for (_, before), (name, at) in pairs)])


def _masters(receipt: Receipt) -> list[tuple[str, str]]:
    if receipt.outcome is Outcome.DONE:
        return [("from", str(receipt.former or "none")), ("to", str(receipt.master or "none"))]
    if receipt.master is None and receipt.former is not None:
        return [("master", f"{receipt.former} was withdrawn")]
    return [("master", f"{receipt.master or 'none'}, as before")]


def findings_text(findings: Sequence[Finding]) -> str:
    """What `doctor` found, with the reason and the line of configuration of each; and what it cannot see."""
    if not findings:
        return f"nothing unsafe was found\n\n{UNSEEN}"
    parts = [
        f"{finding.severity.value}: {finding.node or 'the group'}: {finding.what}\n"
        + textwrap.indent(_pairs([("why", finding.why), ("set", finding.line)]), "    ")
        for finding in findings
    ]
    return "\n\n".join([*parts, UNSEEN])


def findings_json(findings: Sequence[Finding]) -> str:
    """The same as a JSON list; `server` is null for what is about the group or the store."""
    return _json(
        [
            {
                "severity": finding.severity.value,
                "server": str(finding.node) if finding.node else None,
                "what": finding.what,
                "why": finding.why,
                "set": finding.line or None,
            }
            for finding in findings
        ]
    )


def moment(at: float) -> str:
    """A wall clock time, in UTC like the log."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def request_text(request: ManualRequest) -> str:
    """What an operator asked for."""
    return f"make {request.target} the master" if request.target else "make any replica the master"


def pause_text(pause: Pause) -> str:
    """Who paused the managers, as far as it was said."""
    said = [f"by {pause.by}"] if pause.by else []
    said += [f"since {moment(pause.at)}"] if pause.at else []
    return " ".join(said) or "by an unknown operator"


def _summary(snapshot: Snapshot) -> list[tuple[str, str]]:
    topology = snapshot.topology
    master = str(topology.master or "none") if topology else "unknown: there is no topology that can be read"
    rows = [("master", master)]
    rows += [("trouble", trouble) for trouble in troubles(snapshot)]
    rows += [("slowed down", slowed_down_text(snapshot.brake))] if snapshot.brake.on else []
    rows += [("next step waits", waits)] if (waits := _waits_for(snapshot)) else []
    if topology:
        rows += [("phase", topology.phase.value), ("epoch", str(topology.epoch))]
        rows += [("change", change) for change in [_change(topology)] if change]
    none = f"none: node managers of {migration.GEM} lead" if snapshot.gem_leads else "none: no manager leads"
    rows.append(("primary manager", snapshot.primary or none))
    rows += [("paused", f"{pause_text(snapshot.pause)}: end it with 'rfmanager resume'")] if snapshot.pause else []
    rows += [("request", _request(snapshot))] if _request_state(snapshot) else []
    return rows + [("unreadable", why) for why in snapshot.unreadable.values()]


def _request_state(snapshot: Snapshot) -> str:
    if snapshot.request_is_empty:
        return "empty"
    if snapshot.request is None:
        return ""
    return "left over" if snapshot.request_is_left_over else "under way"


def _request(snapshot: Snapshot) -> str:
    """What an operator asked for, and what becomes of it."""
    if snapshot.request is None:
        return f"empty: a client of {migration.GEM} did not fill it; 'rfmanager failover' replaces it"
    text = request_text(snapshot.request)
    if snapshot.gem_leads:
        return f"{text}: a matter of the node managers that lead; {migration.GEM} never removes one that is done"
    if snapshot.request_is_left_over:
        who = f"the primary manager {snapshot.primary}" if snapshot.primary else "the next primary manager"
        return f"{text}: left over from before rfmanager led; {who} refuses it and removes it"
    return f"{text}: under way"


def _waits_for(snapshot: Snapshot) -> str:
    """Why the primary manager does not take its next step."""
    primary = snapshot.managers.get(snapshot.primary)
    return primary.waits_for if primary else ""


def slowed_down_text(brake: Brake) -> str:
    """Why a silent master is given more time than usual, until when, and what to do about it."""
    given = f"a silent master is given {brake.factor} times the usual time until {moment(brake.until)}"
    return f"{brake.reason}: {given}; raise --probe-timeout if it is often silent for so long"


def troubles(snapshot: Snapshot) -> list[str]:
    """What an operator should look at first, one line each; empty when all is well."""
    listed = {"master": "the master ", "replica": "replica "}
    master = next((server.report for server in snapshot.servers if server.listed == "master"), None)
    lines = [migration.line(finding) for finding in migration.findings(snapshot)]
    few = too_few(snapshot.managers, snapshot.primary)
    # While the gem's managers lead, it is they that promote.
    lines += [said for said in complaints(snapshot.managers, snapshot.primary) if said != few or not snapshot.gem_leads]
    said = [
        (server, trouble)
        for server in snapshot.servers
        for trouble in (_cannot_copy(server, master) or _trouble(server, snapshot), *_refusals(server))
    ]
    lines += [f"{listed.get(server.listed, '')}{server.node}: {trouble}" for server, trouble in said if trouble]
    lines += [f"{report.node}: {holding(report)}" for report in snapshot.strangers]
    proxies = sorted(snapshot.proxies.items())
    lines += [f"proxy {name}: its own account: {proxy.account}" for name, proxy in proxies if proxy.account]
    return lines


def _trouble(server: Server, snapshot: Snapshot) -> str:
    """Empty when it is well."""
    report = server.report
    if report is not None and report.condition == "silent":
        said = f"busy: {report.busy_with} for {report.silent_for:.1f} s (said by proxy {report.said_by})"
        return f"{said}, patience ends in {max(0.0, report.patience):.1f} s"
    if report is None or report.available:  # what a proxy says comes sooner than the managers' patience is needed
        for name, proxy in sorted(snapshot.proxies.items()):
            if busy := proxy.busy.get(str(server.node)):
                return f"busy: {busy.command} for {busy.since:.1f} s (said by proxy {name})"
    if report is None:
        return ""
    if report.condition == "ok":
        return _unlinked(report, snapshot) if report.available else _NOT_SAID
    overdue = f"; it was busy with {report.busy_with}, its patience is over" if report.busy_with else ""
    unsaved = f"; it could not write {report.unsaved}" if report.unsaved else ""
    return f"{conditions.trouble(report.condition)}{unsaved}{overdue}"


def _unlinked(report: NodeReport, snapshot: Snapshot) -> str:
    """Of a replica that has no link for long. Without a master, which is shown to be down itself, none has one."""
    said = "its link to" in report.refusal  # with the reason
    if report.unlinked_for < UNLINKED or said or not snapshot.has_master:
        return ""
    return (
        f"has had no link to its master {report.follows} for {report.unlinked_for:.0f} s and is not read from: "
        "its log says why (network, masterauth, a master of a newer version)"
    )


def _refusals(server: Server) -> list[str]:
    """What it refuses to do, in its words. Of managers whose view is not shown only what is new, with their names."""
    shown = server.report.refusal if server.report else ""
    others = {name: report.refusal for name, report in sorted(server.seen.items()) if report.refusal not in ("", shown)}
    return [*filter(None, [shown]), *(f"{said} (says manager {name})" for name, said in others.items())]


def _cannot_copy(server: Server, master: NodeReport | None) -> str:
    """Why its link is down, if that is likely to be the reason."""
    report = server.report
    if report is None or master is None or not report.available or can_copy(report, master):
        return ""
    if report.role != "slave" or report.link_up or report.follows != master.node:
        return ""
    return (
        f"its link is down: the version of its master is probably too new to copy from "
        f"({named(master)}; this is {named(report)}): upgrade it"
    )


def _change(topology: Topology) -> str:
    change = topology.change
    if change is None:
        return ""
    since = f" since {moment(change.steps[0][1])}" if change.steps else ""
    target = change.target or "a server to be chosen"
    return f"{change.kind.value} from {change.former or 'none'} to {target}{since}: {change.cause}"


def _row(server: Server) -> Sequence[object]:
    report = server.report
    if report is None:
        return (server.node, server.listed, "-", "not reported", "-", "-", "-", "-")
    lag = "-" if server.lag is None or not report.available else server.lag
    offset = "-" if report.offset < 0 else str(report.offset) if report.available else f"last {report.offset}"
    return (
        server.node,
        server.listed,
        _role(server),
        _condition(report),
        offset,
        lag,
        shown(report) or "-",
        _up_for(server),
    )


def _condition(report: NodeReport) -> str:
    """The gem does not say what is wrong with a server."""
    return "unavailable" if report.condition == "ok" and not report.available else report.condition


def _role(server: Server) -> str:
    """The server's own view; with what an operator would not expect of it."""
    report = server.report
    if report is None or not report.role:
        return "-"
    if not report.available:
        return f"was {_ROLES.get(report.role, report.role)}"
    if report.role != "slave":
        return _ROLES.get(report.role, report.role)
    state = "syncing" if report.syncing else "" if report.link_up else "link down"
    return ", ".join(filter(None, (f"replica of {report.follows}" if report.follows else "replica", state)))


def _up_for(server: Server) -> str:
    """How many managers see it up; by name those that are of another opinion than the one shown, and theirs."""
    shown = server.report
    others = [
        f"{name}: {_condition(report)}"
        for name, report in sorted(server.seen.items())
        if shown and (report.available, report.condition) != (shown.available, shown.condition)
    ]
    count = f"{len(server.available_for)} of {len(server.seen)}"
    return f"{count} ({', '.join(others)})" if others else count


def _manager_row(name: str, manager: ManagerReport, snapshot: Snapshot) -> Sequence[object]:
    up = sum(report.available for report in manager.nodes)
    role = "primary" if name == snapshot.primary else "redis_failover" if manager.is_gems else "-"
    return (name, role, f"{up} of {len(manager.nodes)}")


def _proxy_row(name: str, proxy: ProxyRecord, epoch: int) -> Sequence[object]:
    acknowledged = f"{proxy.epoch}" if proxy.epoch >= epoch else f"{proxy.epoch} (behind)"
    wait = f"{proxy.longest_wait:.3f} s" if proxy.longest_wait else "-"
    counts = (proxy.clients, proxy.held, proxy.replayed, proxy.uncertain)
    return (name, proxy.address or "-", acknowledged, *counts, wait)


def _proxy_said(receipt: Receipt, name: str) -> str:
    """What it has to tell: most proxies have replayed nothing and left nothing uncertain."""
    said = receipt.proxies.get(name, {})
    telling = {key.replace("_", " "): _number(value) for key, value in said.items() if value and key != "version"}
    if name in receipt.acknowledged:
        telling["acknowledged"] = f"+{_ms(_after_withdrawal(receipt, receipt.acknowledged[name]))}"
    return f"{name} ({_facts(telling)})" if telling else name


def _after_withdrawal(receipt: Receipt, at: float) -> float:
    """Seconds since the master was withdrawn; since the beginning, when it is not known when that was."""
    began = [when for _, when in receipt.steps[:1]]
    withdrawn = [when for step, when in receipt.steps if step in ("fenced", "draining") and when <= at]
    return at - max(withdrawn or began, default=at)


def _number(value: Any) -> Any:
    return f"{value * 1000:.0f} ms" if isinstance(value, float) else value


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _facts(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(facts.items()))


def _duration(receipt: Receipt) -> str:
    return f"{receipt.duration:.3f} s"


def _plain_manager(name: str, snapshot: Snapshot) -> dict[str, Any]:
    manager = snapshot.managers[name]
    return {
        "name": name,
        "primary": name == snapshot.primary,
        "gem": manager.is_gems,
        "sequence": manager.sequence,
        "servers_up": sum(report.available for report in manager.nodes),
        "configured": None if manager.configured is None else [str(node) for node in manager.configured],
        "required": manager.required or None,
        "strategy": manager.strategy or None,
    }


def _plain_server(server: Server, snapshot: Snapshot) -> dict[str, Any]:
    """What was known of a server that is not available any more is what it was: `available` says so."""
    report = server.report
    known: dict[str, Any] = {}
    if report:
        known = {
            "role": _ROLES.get(report.role, report.role) or None,
            "condition": _condition(report),
            "available": report.available,
            "offset": report.offset if report.offset >= 0 else None,
            "follows": str(report.follows) if report.follows else None,
            "link_up": report.link_up,
            "syncing": report.syncing,
            "latency": report.latency,
            "priority": report.priority,
            "run_id": report.run_id,
            "replid": report.replid,
            "refusal": report.refusal or None,
            "software": (report.software or "redis") if report.version else None,
            "version": report.version or None,
            "eviction": report.eviction or None,
            "notify_keyspace_events": report.events,
            "unlinked_for": report.unlinked_for,
            "busy_with": report.busy_with or None,
            "unsaved": report.unsaved or None,
        }
    return {
        "address": str(server.node),
        "listed": server.listed,
        **known,
        "trouble": _trouble(server, snapshot) or None,
        "lag": server.lag,
        "managers": {
            name: {
                "available": said.available,
                "condition": _condition(said),
                **({"refusal": said.refusal} if said.refusal else {}),
            }
            for name, said in sorted(server.seen.items())
        },
    }


def _plain_change(topology: Topology | None) -> Any:
    return json.loads(topology.encode()).get("change") if topology else None


def _table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    # Numbers are not to be guessed: an address or a name may look like one.
    text = tabulate([[str(cell) for cell in row] for row in rows], headers, tablefmt="plain", disable_numparse=True)
    return "\n".join(line.rstrip() for line in text.splitlines())


def _pairs(rows: Iterable[tuple[str, str]]) -> str:
    return _table((), [row for row in rows if row[1]])


def _json(value: Any) -> str:
    return json.dumps(value, indent=2)
