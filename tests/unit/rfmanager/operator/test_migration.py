"""What does not hold between the gem and this system is said with the reason and what to do, each on one line."""

from __future__ import annotations

from dataclasses import replace

from rfmanager.operator.doctor_facts import Finding, Severity
from rfmanager.operator.migration import findings, gems_managers, line
from rfmanager.operator.snapshot import Pause, Snapshot
from rfprotocol.topology.records import ProxyRecord
from rfprotocol.topology.topology import ManagerReport, Node, NodeReport, Phase, Topology

A, B = Node("a", 6379), Node("b", 6379)
OURS = {"m1": ManagerReport("m1", 5, (NodeReport(A, True),), configured=(A,))}
GEMS = {"h2-7": ManagerReport("h2-7", nodes=(NodeReport(A, True),)), "h1-12": ManagerReport("h1-12")}
GEMS_RECORD = Topology(0, Phase.SERVING, A, replicas=(B,))
RECORD = Topology(7, Phase.SERVING, A, replicas=(B,), run_id="x")
HEALTHY = Snapshot(RECORD, "m1", OURS, proxies={"p1": ProxyRecord(7)})


def only(snapshot: Snapshot) -> Finding:
    [finding] = findings(snapshot)
    assert finding.node is None
    assert "\n" not in line(finding)
    return finding


def test_findings__rfmanager_leads_alone__none() -> None:
    assert findings(HEALTHY) == []
    assert findings(Snapshot()) == []


def test_findings__the_gems_managers_lead__nothing_is_fenced_until_they_are_stopped() -> None:
    finding = only(Snapshot(GEMS_RECORD, managers=GEMS, gem_leads=True))
    assert (finding.severity, finding.what) == (
        Severity.UNSAFE,
        "node managers of Ruby's redis_failover (h1-12, h2-7) lead",
    )
    assert "rfmanager does nothing until they are stopped" in finding.why
    assert "a deposed master may acknowledge writes that are lost" in finding.why
    assert finding.line == "stop every redis_node_manager, then start rfmanager"


def test_findings__managers_wait_for_the_gems__need_not_be_started() -> None:
    finding = only(Snapshot(GEMS_RECORD, managers=GEMS | OURS, gem_leads=True))
    assert finding.line == "stop every redis_node_manager, then an rfmanager takes over by itself"


def test_findings__both_lead__is_said() -> None:
    finding = only(replace(HEALTHY, managers=GEMS | OURS, gem_leads=True))
    assert finding.severity is Severity.UNSAFE
    assert "(h1-12, h2-7) and the primary manager m1 lead at the same time" in finding.what


def test_findings__a_gems_manager_waits_in_line_or_only_reports__is_a_warning() -> None:
    waits = only(replace(HEALTHY, managers=GEMS | OURS, gem_waits=True))
    assert waits.severity is Severity.WARNING
    assert waits.what.endswith("(h1-12, h2-7) wait in line beside rfmanager")
    assert waits.line == "stop every redis_node_manager"
    assert only(replace(HEALTHY, managers=GEMS | OURS)).what.endswith("(h1-12, h2-7) run beside rfmanager")


def test_findings__a_gems_manager_without_a_report__has_no_name() -> None:
    assert gems_managers(Snapshot(gem_leads=True)) == "node managers of Ruby's redis_failover"


def test_findings__the_gems_record__names_who_adopts_it() -> None:
    led = only(Snapshot(GEMS_RECORD, "m1", OURS))
    assert led.severity is Severity.UNSAFE
    assert led.what == "the record was written by Ruby's redis_failover, and no rfmanager has adopted it"
    assert led.line.startswith("the primary manager m1 adopts it when the servers agree on one master; its log")
    assert only(Snapshot(GEMS_RECORD)).line.startswith("start rfmanager: ")
    assert only(Snapshot(GEMS_RECORD, managers=OURS)).line.startswith("no manager leads, the managers' logs say why")
    assert only(Snapshot(GEMS_RECORD, "m1", OURS, pause=Pause())).line.startswith("'rfmanager resume', then ")


def test_findings__a_record_of_this_system_while_the_gem_is_away__is_well() -> None:
    assert findings(Snapshot(Topology(3, Phase.UNSETTLED), "m1", OURS)) == []


def test_findings__the_record_went_back__names_the_epoch_a_proxy_and_how_many_others() -> None:
    proxies = {"p1": ProxyRecord(8), "p2": ProxyRecord(9), "p3": ProxyRecord(9), "p4": ProxyRecord(7)}
    finding = only(replace(HEALTHY, proxies=proxies))
    assert finding.severity is Severity.UNSAFE
    assert finding.what == "the record went back to epoch 7, and proxy p2 and 2 others acknowledged up to epoch 9"
    assert "do not act upon it, and their writes may wait" in finding.why
    assert finding.line == "the primary manager m1 publishes it anew by itself; its log says why if this stays"
    alone = only(replace(HEALTHY, proxies={"p1": ProxyRecord(8)}, primary="", managers={}))
    assert alone.what.endswith("and proxy p1 acknowledged up to epoch 8")
    assert alone.line == "start rfmanager: the primary manager publishes it anew by itself"


def test_findings__the_record_is_gone_and_proxies_are_not__is_said() -> None:
    finding = only(Snapshot(proxies={"p1": ProxyRecord(8)}))
    assert finding.what == "the record is gone, and proxy p1 acknowledged up to epoch 8"


def test_findings__a_record_that_cannot_be_read__is_not_said_to_have_gone_back() -> None:
    assert findings(Snapshot(proxies={"p1": ProxyRecord(8)}, unreadable={"nodes": "?"})) == []


def test_findings__back_to_the_gem__proxies_accept_its_record_later() -> None:
    leads, back = findings(Snapshot(GEMS_RECORD, managers=GEMS, gem_leads=True, proxies={"p1": ProxyRecord(8)}))
    assert leads.what.endswith("lead")
    assert back.what == "the record went back to epoch 0, and proxy p1 acknowledged up to epoch 8"
    assert back.line == "wait: a record of the node managers that has stayed for 10 s is accepted"
