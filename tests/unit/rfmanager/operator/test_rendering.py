"""What operators read: everything that matters, in words that say what to do; and JSON that says the same."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rfmanager.evidence.false_alarms import Brake
from rfmanager.operator import rendering
from rfmanager.operator.doctor import UNSEEN
from rfmanager.operator.doctor_facts import Finding, Severity
from rfmanager.operator.snapshot import Pause, Snapshot
from rfprotocol.topology.records import ManualRequest, Occupation, Outcome, ProxyRecord, Receipt
from rfprotocol.topology.topology import Change, Kind, ManagerReport, Node, NodeReport, Phase, Topology

A, B, C = (Node(name, 6379) for name in "abc")

MASTER = NodeReport(
    A, True, role="master", offset=1000, replid="r", version="8.0.0", eviction="allkeys-lru", events="xE"
)
REPLICA = NodeReport(
    B, True, role="slave", offset=990, replid="r", follows=A, link_up=True, software="valkey", version="9.1.2"
)
DOWN = NodeReport(C, False, condition="refused")

HEALTHY = Snapshot(
    Topology(7, Phase.SERVING, A, replicas=(B,), unavailable=(C,)),
    primary="m1",
    managers={
        "m1": ManagerReport("m1", 5, (MASTER, REPLICA, DOWN)),
        "m2": ManagerReport("m2", 9, (MASTER, REPLICA, DOWN)),
    },
    proxies={"p1": ProxyRecord(7, "10.0.0.1:6380", clients=16), "p2": ProxyRecord(6, longest_wait=0.0215)},
)

DONE = Receipt(
    9,
    Kind.FAILOVER,
    Outcome.DONE,
    "the master a:6379 is unavailable (refused)",
    former=A,
    master=B,
    manager="m1",
    steps=(
        ("noticed", 1_700_000_000.25),
        ("agreed", 1_700_000_000.255),
        ("fenced", 1_700_000_000.26),
        ("published", 1_700_000_000.3),
    ),
    acknowledged={"p1": 1_700_000_000.2625, "p3": 1_700_000_000.27},
    offsets={"b:6379": 990},
    proxies={"p1": {"epoch": 9, "uncertain": 3, "replayed": 0, "longest_wait": 0.0514}, "p2": {}},
)
REFUSED = Receipt(10, Kind.SWITCHOVER, Outcome.REFUSED, "b:6379 is the master already", former=B, master=B)


def cells(text: str, first: str) -> list[str]:
    """The cells of the row that begins with `first`."""
    line = next(line for line in text.splitlines() if line.startswith(first))
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_the_status_says_who_is_master_in_which_phase_and_epoch() -> None:
    text = rendering.status_text(HEALTHY)
    assert cells(text, "master") == ["master", "a:6379"]
    assert cells(text, "phase") == ["phase", "serving"]
    assert cells(text, "epoch") == ["epoch", "7"]


def test_the_status_shows_role_condition_offset_lag_and_availability_of_each_server() -> None:
    text = rendering.status_text(HEALTHY)
    assert cells(text, "a:") == ["a:6379", "master", "master", "ok", "1000", "-", "8.0.0", "2 of 2"]
    assert cells(text, "b:") == ["b:6379", "replica", "replica of a:6379", "ok", "990", "10", "valkey 9.1.2", "2 of 2"]
    assert cells(text, "c:") == ["c:6379", "unavailable", "-", "refused", "-", "-", "-", "0 of 2"]


def test_a_manager_of_another_opinion_is_named_with_it() -> None:
    managers = {**HEALTHY.managers, "m2": ManagerReport("m2", 1, (NodeReport(A, False, condition="timeout"),))}
    text = rendering.status_text(Snapshot(HEALTHY.topology, "m1", managers))
    assert cells(text, "a:")[-1] == "1 of 2 (m2: timeout)"


def test_a_replica_without_link_or_in_a_full_transfer_is_said_to_be_so() -> None:
    broken = NodeReport(B, True, role="slave", follows=A)
    syncing = NodeReport(C, True, role="slave", follows=A, syncing=True, condition="loading")
    text = rendering.status_text(Snapshot(managers={"m": ManagerReport("m", 1, (broken, syncing))}))
    assert cells(text, "b:")[2] == "replica of a:6379, link down"
    assert cells(text, "c:")[2:4] == ["replica of a:6379, syncing", "loading"]


def test_the_status_marks_the_primary_manager_and_proxies_that_are_behind() -> None:
    text = rendering.status_text(HEALTHY)
    assert cells(text, "m1") == ["m1", "primary", "2 of 3"]
    assert cells(text, "m2") == ["m2", "-", "2 of 3"]
    assert cells(text, "p1") == ["p1", "10.0.0.1:6380", "7", "16", "0", "0", "0", "-"]
    assert cells(text, "p2") == ["p2", "-", "6 (behind)", "0", "0", "0", "0", "0.021 s"]


def test_a_change_under_way_is_described() -> None:
    change = Change(Kind.FAILOVER, "it died", former=A, steps=(("noticed", 1_700_000_000.0),))
    text = rendering.status_text(Snapshot(Topology(8, Phase.FENCING, change=change)))
    line = next(line for line in text.splitlines() if line.startswith("change"))
    assert line.endswith("failover from a:6379 to a server to be chosen since 2023-11-14 22:13:20.000Z: it died")


def test_pauses_requests_and_missing_managers_are_said() -> None:
    text = rendering.status_text(Snapshot(pause=Pause("me@host", 1_700_000_000.0), request=ManualRequest(B)))
    assert "by me@host since 2023-11-14 22:13:20.000Z: end it with 'rfmanager resume'" in text
    assert "make b:6379 the master: under way" in text
    assert "none: no manager leads" in text


def test_an_unreadable_topology_is_said_instead_of_a_master() -> None:
    text = rendering.status_text(Snapshot(unreadable={"nodes": "the nodes record is not JSON"}))
    assert "unknown: there is no topology that can be read" in text
    assert "the nodes record is not JSON" in text


STUCK = replace(
    HEALTHY,
    managers={
        "m1": ManagerReport(
            "m1", 5, (MASTER, replace(REPLICA, refusal="cannot be detached: WRONGPASS")), waits_for="not yet"
        ),
        "m2": ManagerReport(
            "m2", 9, (replace(MASTER, refusal="refuses new connections: NOAUTH"), REPLICA), waits_for="mine"
        ),
    },
)


def test_what_servers_refuse_and_what_the_next_step_waits_for_is_said() -> None:
    text = rendering.status_text(STUCK)
    assert cells(text, "next step waits") == ["next step waits", "not yet"]
    lines = [line.split("  ")[-1].strip() for line in text.splitlines() if line.startswith("trouble")]
    assert "replica b:6379: cannot be detached: WRONGPASS" in lines
    assert "the master a:6379: refuses new connections: NOAUTH (says manager m2)" in lines


def test_what_servers_refuse_and_what_the_next_step_waits_for_is_in_the_json() -> None:
    plain = json.loads(rendering.status_json(STUCK))
    assert plain["waits_for"] == "not yet"
    servers = {server["address"]: server for server in plain["servers"]}
    assert servers["b:6379"]["refusal"] == "cannot be detached: WRONGPASS"
    assert servers["a:6379"]["refusal"] is None
    assert servers["a:6379"]["managers"]["m2"]["refusal"] == "refuses new connections: NOAUTH"
    assert json.loads(rendering.status_json(HEALTHY))["waits_for"] is None


def test_the_status_as_json_has_the_same_facts_as_numbers() -> None:
    plain = json.loads(rendering.status_json(HEALTHY))
    assert (plain["master"], plain["phase"], plain["epoch"], plain["primary"]) == ("a:6379", "serving", 7, "m1")
    replica = plain["servers"][1]
    assert (replica["address"], replica["role"], replica["offset"], replica["lag"]) == ("b:6379", "replica", 990, 10)
    assert replica["managers"]["m2"] == {"available": True, "condition": "ok"}
    assert [(p["name"], p["epoch"]) for p in plain["proxies"]] == [("p1", 7), ("p2", 6)]
    assert plain["paused"] is None
    assert plain["request"] is None


def test_the_status_of_nothing_is_valid_json() -> None:
    plain = json.loads(rendering.status_json(Snapshot(pause=Pause(), request=ManualRequest(None))))
    assert plain["master"] is None
    assert plain["paused"] == {"by": "", "at": 0.0}
    assert plain["request"] == "ANY_SLAVE"


def test_a_receipt_tells_the_whole_story() -> None:
    text = rendering.receipt_text(DONE)
    assert cells(text, "failover") == ["failover", "done, epoch 9"]
    assert cells(text, "from") == ["from", "a:6379"]
    assert cells(text, "to") == ["to", "b:6379"]
    assert cells(text, "took") == ["took", "0.050 s"]
    assert cells(text, "steps") == ["steps", "noticed, +5.0 ms agreed, +5.0 ms fenced, +40.0 ms published"]
    assert cells(text, "offsets") == ["offsets", "b:6379 990"]
    assert cells(text, "proxies") == [
        "proxies",
        "p1 (acknowledged +2.5 ms, epoch 9, longest wait 51 ms, uncertain 3); p2; p3 (acknowledged +10.0 ms)",
    ]


def test_an_acknowledgement_is_told_from_the_beginning_when_nobody_noted_the_withdrawal() -> None:
    steps = (("noticed", 100.0), ("agreed", 100.25), ("published", 101.0))
    text = rendering.receipt_text(replace(DONE, steps=steps, acknowledged={"p2": 100.5}))
    assert "p2 (acknowledged +500.0 ms)" in text


def test_the_receipt_of_a_refusal_says_why_and_that_nothing_changed() -> None:
    text = rendering.receipt_text(REFUSED)
    assert cells(text, "switchover") == ["switchover", "refused, epoch 10"]
    assert cells(text, "cause") == ["cause", "b:6379 is the master already"]
    assert cells(text, "master") == ["master", "b:6379, as before"]


def test_a_master_that_was_lost_while_it_was_to_be_moved_is_not_said_to_serve_as_before() -> None:
    lost = replace(REFUSED, former=REFUSED.master, master=None)
    assert cells(rendering.receipt_text(lost), "master") == ["master", "b:6379 was withdrawn"]


def test_the_history_has_a_line_for_each_change() -> None:
    text = rendering.history_text([DONE, REFUSED])
    assert cells(text, "9")[:6] == ["9", "2023-11-14 22:13:20.250Z", "failover", "done", "a:6379", "b:6379"]
    assert cells(text, "10")[:4] == ["10", "-", "switchover", "refused"]


def test_an_empty_history_is_said_to_be_empty() -> None:
    assert rendering.history_text([]) == "no change of master is on record"
    assert rendering.history_json([]) == "[]"


def test_the_history_as_json_is_what_the_store_holds() -> None:
    assert [Receipt.decode(json.dumps(item).encode()) for item in json.loads(rendering.history_json([DONE]))] == [DONE]


def test_pauses_by_somebody_unknown_can_be_told() -> None:
    assert rendering.pause_text(Pause()) == "by an unknown operator"


def test_findings_say_what_why_and_which_line_puts_it_right_and_then_what_was_not_seen() -> None:
    unsafe = Finding(Severity.UNSAFE, A, "accepts writes", "nobody else has them", "replica-read-only yes")
    warning = Finding(Severity.WARNING, None, "sessions are long", "changes wait")
    assert rendering.findings_text([unsafe, warning]) == (
        "unsafe: a:6379: accepts writes\n"
        "    why  nobody else has them\n"
        "    set  replica-read-only yes\n\n"
        "warning: the group: sessions are long\n"
        "    why  changes wait\n\n" + UNSEEN
    )
    assert rendering.findings_text([]) == f"nothing unsafe was found\n\n{UNSEEN}"
    assert json.loads(rendering.findings_json([warning])) == [
        {"severity": "warning", "server": None, "what": "sessions are long", "why": "changes wait", "set": None}
    ]


def trouble(seen: NodeReport, *proxies: ProxyRecord) -> str:
    """The line of `status` that an operator should look at first."""
    said = {f"p{number}": proxy for number, proxy in enumerate(proxies, 1)}
    text = rendering.status_text(Snapshot(HEALTHY.topology, "m1", {"m1": ManagerReport("m1", 1, (seen,))}, said))
    return next((line.removeprefix("trouble").strip() for line in text.splitlines() if line.startswith("trouble")), "")


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("refused", "refuses connections"),
        ("closed", "accepts connections and closes them"),
        ("timeout", "accepts connections but does not answer (frozen or busy)"),
        ("unreachable", "does not answer: host or network unreachable"),
        ("unresolved", "its name cannot be resolved"),
        ("foreign", "is no Redis server"),
        ("sentinel", "is a Sentinel"),
        ("wrongpass", "refuses the managers' password"),
    ],
)
def test_status__each_kind_of_silence__has_words_of_its_own(condition: str, words: str) -> None:
    assert trouble(NodeReport(A, False, condition=condition)).startswith(f"the master a:6379: {words}")


def test_status__a_busy_server__shows_command_proxy_and_patience() -> None:
    seen = replace(MASTER, condition="silent", busy_with="FLUSHALL", said_by="p1", silent_for=2.1, patience=2.9)
    assert trouble(seen) == "the master a:6379: busy: FLUSHALL for 2.1 s (said by proxy p1), patience ends in 2.9 s"


def test_status__a_proxy_says_busy_before_the_managers__is_shown() -> None:
    busy = ProxyRecord(7, busy={"a:6379": Occupation("EVAL", 0.3)})
    assert trouble(MASTER, ProxyRecord(7), busy) == "the master a:6379: busy: EVAL for 0.3 s (said by proxy p2)"


def test_status__a_dead_server_that_a_proxy_called_busy__is_dead() -> None:
    busy = ProxyRecord(7, busy={"a:6379": Occupation("EVAL", 0.3)})
    assert "refuses connections" in trouble(replace(MASTER, available=False, condition="refused"), busy)


def test_status__patience_is_over__says_what_it_was_busy_with() -> None:
    assert trouble(replace(MASTER, available=False, condition="timeout", busy_with="FLUSHALL")).endswith(
        "does not answer (frozen or busy); it was busy with FLUSHALL, its patience is over"
    )


SLOWED = Brake(factor=4, until=1_700_000_600.0, recent=3, false_alarms=2)


def test_status__changes_are_slowed_down__says_why_until_when_and_what_to_do() -> None:
    line = next(x for x in rendering.status_text(replace(HEALTHY, brake=SLOWED)).splitlines() if x.startswith("slowed"))
    assert line.removeprefix("slowed down").strip() == (
        "2 false alarms and 3 changes of master within a minute: a silent master is given 4 times the usual time until "
        "2023-11-14 22:23:20.000Z; raise --probe-timeout if it is often silent for so long"
    )
    assert "slowed down" not in rendering.status_text(HEALTHY)
    assert json.loads(rendering.status_json(replace(HEALTHY, brake=SLOWED)))["slowed_down"]["factor"] == 4
    assert json.loads(rendering.status_json(HEALTHY))["slowed_down"] is None


def test_receipt__a_false_alarm__is_said() -> None:
    alarm = replace(DONE, returned=0.44)
    assert "a:6379 was alive: the same process answered again 0.4 s after the change" in rendering.receipt_text(alarm)
    assert "done, false alarm" in rendering.history_text([alarm])
    assert "false alarm" not in rendering.history_text([DONE])


def test_status__account_of_a_proxy_lacks_rights__is_a_trouble() -> None:
    proxies = {"p1": ProxyRecord(7, account="10.0.0.1:6379 lacks info+role")}
    text = rendering.status_text(replace(HEALTHY, proxies=proxies))
    assert "proxy p1: its own account: 10.0.0.1:6379 lacks info+role" in text


def test_replica__whose_link_is_down__version_of_its_master_is_too_new() -> None:
    old = NodeReport(B, True, role="slave", follows=A, version="7.0.15")
    text = rendering.status_text(
        Snapshot(Topology(7, Phase.SERVING, A), "m", {"m": ManagerReport("m", 1, (MASTER, old))})
    )
    (line,) = [line for line in text.splitlines() if line.startswith("trouble")]
    assert "its master is probably too new to copy from (Redis 8.0.0; this is Redis 7.0.15)" in line
    linked = replace(old, link_up=True)
    text = rendering.status_text(
        Snapshot(Topology(7, Phase.SERVING, A), "m", {"m": ManagerReport("m", 1, (MASTER, linked))})
    )
    assert "too new" not in text


def test_json__has_versions_eviction_and_events() -> None:
    master, replica, down = json.loads(rendering.status_json(HEALTHY))["servers"]
    names = ("software", "version", "eviction", "notify_keyspace_events")
    assert [master[name] for name in names] == ["redis", "8.0.0", "allkeys-lru", "xE"]
    assert [replica[name] for name in names] == ["valkey", "9.1.2", None, None]
    assert down["version"] is None


WATCHED = replace(
    HEALTHY,
    managers={
        name: ManagerReport(name, 5, (MASTER, REPLICA), configured=(A, B), required=2, strategy="majority")
        for name in ("m1", "m2")
    },
)


def lines(snapshot: Snapshot) -> list[str]:
    """The lines of trouble, which are the same in both forms."""
    text = rendering.status_text(snapshot)
    said = [line.removeprefix("trouble").strip() for line in text.splitlines() if line.startswith("trouble")]
    assert json.loads(rendering.status_json(snapshot))["trouble"] == said
    return said


def test_status__all_is_well__has_no_trouble_in_either_form() -> None:
    assert lines(WATCHED) == []


def test_status__too_few_managers__is_said_while_the_master_is_well_and_when_it_is_lost() -> None:
    few = "1 of 2 required managers report: nobody is promoted; start the others"
    assert lines(replace(WATCHED, managers={"m1": WATCHED.managers["m1"]})) == [few]
    dead = replace(MASTER, available=False, condition="refused")
    lost = {"m1": replace(WATCHED.managers["m1"], nodes=(dead, REPLICA))}
    assert lines(replace(WATCHED, managers=lost))[0] == few


def test_status__a_server_under_two_names__is_said() -> None:
    seen = tuple(replace(one, run_id="f00d") for one in (MASTER, replace(REPLICA, node=C)))
    assert (
        "a:6379 and c:6379 are one server"
        in lines(replace(WATCHED, managers={name: replace(one, nodes=seen) for name, one in WATCHED.managers.items()}))[
            0
        ]
    )


def test_status__as_json__says_what_each_manager_was_told() -> None:
    first = json.loads(rendering.status_json(WATCHED))["managers"][0]
    assert (first["configured"], first["required"], first["strategy"]) == (["a:6379", "b:6379"], 2, "majority")


@pytest.mark.parametrize(("seconds", "said"), [(9.9, False), (12.4, True)])
def test_status__a_replica_without_a_link__is_a_trouble_when_it_lasts(seconds: float, said: bool) -> None:
    broken = replace(REPLICA, link_up=False, unlinked_for=seconds, software="", version="8.0.0")
    seen = replace(WATCHED, managers={"m1": ManagerReport("m1", 1, (MASTER, broken))})
    expected = "replica b:6379: has had no link to its master a:6379 for 12 s and is not read from"
    assert [line.partition(":  ")[0][: len(expected)] for line in lines(seen)] == [expected] * said


def test_status__a_replica_without_a_link_to_a_dead_master__is_no_trouble_of_its_own() -> None:
    broken = replace(REPLICA, link_up=False, unlinked_for=60.0, software="", version="8.0.0")
    dead = replace(MASTER, available=False)
    seen = replace(WATCHED, managers={"m1": ManagerReport("m1", 1, (replace(dead, condition="refused"), broken))})
    assert lines(seen) == ["the master a:6379: refuses connections: is it running?"]


def test_status__a_server_that_vanished__shows_what_it_was_as_such() -> None:
    dead = replace(MASTER, available=False, condition="unreachable")
    behind = replace(REPLICA, available=False, condition="refused")
    text = rendering.status_text(Snapshot(WATCHED.topology, "m1", {"m1": ManagerReport("m1", 1, (dead, behind))}))
    assert cells(text, "a:")[2:6] == ["was master", "unreachable", "last 1000", "-"]
    assert cells(text, "b:")[2:6] == ["was replica", "refused", "last 990", "-"]


def test_status__a_full_disk__says_what_could_not_be_written() -> None:
    full = replace(MASTER, condition="misconf", unsaved="its RDB dump")
    assert trouble(full).endswith("check its disk and its log; it could not write its RDB dump")


GEMS = ManagerReport("h1-12", nodes=(NodeReport(A, True), NodeReport(B, False)))


def test_status__the_gems_managers_lead__trouble_says_so_and_nothing_else_of_managers() -> None:
    snapshot = Snapshot(Topology(0, Phase.SERVING, A, replicas=(B,)), managers={"h1-12": GEMS}, gem_leads=True)
    gem, server = rendering.troubles(snapshot)
    assert gem.startswith("node managers of Ruby's redis_failover (h1-12) lead: rfmanager does nothing until ")
    assert server == "replica b:6379: is unavailable, and node managers of Ruby's redis_failover do not say why"
    text = rendering.status_text(snapshot)
    assert "none: node managers of Ruby's redis_failover lead" in text
    assert cells(text, "h1-12") == ["h1-12", "redis_failover", "1 of 2"]
    assert cells(text, "b:")[3] == "unavailable"
    plain = json.loads(rendering.status_json(snapshot))
    assert plain["gem"] == {"leads": True, "waits": False, "managers": ["h1-12"], "record": True}
    assert plain["trouble"] == [gem, server]
    assert plain["managers"][0]["gem"] is True


def test_status__the_gems_managers_lead__no_report_or_too_few_are_not_said_to_promote_nobody() -> None:
    assert len(rendering.troubles(Snapshot(gem_leads=True))) == 1
    waiting = ManagerReport("m1", 3, configured=(A,), required=2, strategy="majority")
    assert len(rendering.troubles(Snapshot(managers={"m1": waiting}, gem_leads=True))) == 1
    assert len(rendering.troubles(Snapshot(managers={"m1": waiting}))) == 1, "there it is said"


def test_status__a_gems_manager_waits_in_line__does_not_count_to_the_required_managers() -> None:
    ours = ManagerReport("m1", 3, configured=(A,), required=2, strategy="majority")
    waits, few = rendering.troubles(Snapshot(primary="m1", managers={"m1": ours, "h1-12": GEMS}, gem_waits=True))[:2]
    assert "(h1-12) wait in line beside rfmanager: when no rfmanager leads they take over" in waits
    assert few == "1 of 2 required managers report: nobody is promoted; start the others"


def test_status__the_record_went_back__is_trouble_and_has_a_key() -> None:
    snapshot = replace(HEALTHY, proxies={"p1": ProxyRecord(9), "p2": ProxyRecord(7)})
    assert rendering.troubles(snapshot)[0].startswith(
        "the record went back to epoch 7, and proxy p1 acknowledged up to "
    )
    plain = json.loads(rendering.status_json(snapshot))
    assert plain["gone_back"] == {"epoch": 9, "proxy": "p1", "others": 0}
    assert json.loads(rendering.status_json(HEALTHY))["gone_back"] is None


@pytest.mark.parametrize(
    ("snapshot", "state", "said"),
    [
        (Snapshot(), None, ""),
        (Snapshot(request=ManualRequest(B)), "under way", "make b:6379 the master: under way"),
        (
            Snapshot(primary="m1", request=ManualRequest(B), request_is_left_over=True),
            "left over",
            "make b:6379 the master: left over from before rfmanager led; the primary manager m1 refuses it",
        ),
        (
            Snapshot(request=ManualRequest(B), request_is_left_over=True),
            "left over",
            "left over from before rfmanager led; the next primary manager refuses it and removes it",
        ),
        (
            Snapshot(request=ManualRequest(None), request_is_left_over=True, gem_leads=True),
            "left over",
            "a matter of the node managers that lead; Ruby's redis_failover never removes one that is done",
        ),
        (Snapshot(request_is_empty=True), "empty", "'rfmanager failover' replaces it"),
    ],
)
def test_status__a_request__says_what_becomes_of_it(snapshot: Snapshot, state: str | None, said: str) -> None:
    line = next((line for line in rendering.status_text(snapshot).splitlines() if line.startswith("request ")), "")
    assert said in line
    assert bool(said) is bool(line)
    assert json.loads(rendering.status_json(snapshot))["request_state"] == state
