"""What is unsafe about a group and what is not, each with the reason and the line of configuration."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rfmanager.operator.doctor import examine
from rfmanager.operator.doctor_facts import Finding, GroupFacts, ServerFacts, Severity
from rfprotocol.topology.topology import Node

A, B, C = (Node(f"10.0.0.{number}", 6379) for number in (1, 2, 3))

SETTINGS = {
    "appendonly": "yes",
    "busy-reply-threshold": "1000",
    "cluster-enabled": "no",
    "masterauth": "",
    "min-replicas-max-lag": "10",
    "min-replicas-to-write": "0",
    "repl-backlog-size": "1048576",
    "repl-diskless-sync": "yes",
    "repl-diskless-sync-delay": "5",
    "replica-announce-ip": "",
    "replica-announce-port": "0",
    "replica-priority": "100",
    "replica-read-only": "yes",
    "save": "3600 1 300 100 60 10000",
}
MASTER = ServerFacts(A, role="master", settings=SETTINGS, denied={}, users={})
REPLICAS = (replace(MASTER, node=B, role="slave"), replace(MASTER, node=C, role="slave"))
SAFE = GroupFacts((MASTER, *REPLICAS))


def group_with(first: ServerFacts, *others: ServerFacts, with_password: bool = False) -> GroupFacts:
    return GroupFacts((first, *(others or REPLICAS)), with_password=with_password)


def configured(**settings: str) -> GroupFacts:
    changed = {name.replace("_", "-"): value for name, value in settings.items()}
    return group_with(replace(MASTER, settings=SETTINGS | changed))


def only(group: GroupFacts) -> Finding:
    [finding] = examine(group)
    assert finding.why
    return finding


def test_nothing_is_said_of_a_group_that_is_safe() -> None:
    assert examine(SAFE) == []


def test_the_worst_comes_first() -> None:
    findings = examine(configured(repl_backlog_size="16384", replica_read_only="no", replica_announce_port="7000"))
    assert [finding.severity for finding in findings] == [Severity.UNSAFE, Severity.WARNING, Severity.NOTE]


def test_a_server_that_cannot_be_asked_may_be_unsafe_and_nothing_else_is_said_of_it() -> None:
    finding = only(group_with(MASTER, ServerFacts(B, trouble="it cannot be reached"), REPLICAS[1]))
    assert (finding.severity, finding.node) == (Severity.UNSAFE, B)
    assert "it cannot be reached" in finding.what


@pytest.mark.parametrize(
    ("granted", "line"), [(10.0, "tickTime=2000  (zoo.cfg)"), (2.0, "maxSessionTimeout=4000  (zoo.cfg)")]
)
def test_another_session_timeout_than_was_asked_for_is_a_warning(granted: float, line: str) -> None:
    finding = only(replace(SAFE, granted_timeout=granted))
    assert (finding.severity, finding.node, finding.line) == (Severity.WARNING, None, line)
    assert f"{granted:g} s instead of 4 s" in finding.what


def test_a_master_alone_is_unsafe() -> None:
    finding = only(GroupFacts((MASTER,)))
    assert (finding.severity, finding.node) == (Severity.UNSAFE, None)
    assert "name its replicas" in finding.line


def test_masters_that_nobody_follows_are_unsafe() -> None:
    assert only(group_with(MASTER, replace(MASTER, node=B))).line == "replicaof HOST PORT"


def test_replicas_that_may_all_not_be_promoted_are_unsafe_and_one_such_is_not() -> None:
    barred = [replace(server, settings=SETTINGS | {"replica-priority": "0"}) for server in REPLICAS]
    assert only(group_with(MASTER, *barred)).line == "replica-priority 100"
    assert examine(group_with(MASTER, barred[0], REPLICAS[1])) == []


def test_a_loopback_address_is_unsafe_unless_all_have_one() -> None:
    local = replace(MASTER, node=Node("127.0.0.1", 6379))
    finding = only(group_with(local))
    assert (finding.severity, finding.node) == (Severity.UNSAFE, local.node)
    assert finding.line.startswith("nodes: HOST:6379")
    assert only(group_with(replace(MASTER, node=Node("localhost", 6379)))).severity is Severity.UNSAFE
    assert examine(group_with(local, replace(REPLICAS[0], node=Node("127.0.0.1", 6380)))) == []


def test_a_clock_that_is_apart_from_the_masters_is_a_warning() -> None:
    finding = only(group_with(MASTER, replace(REPLICAS[0], clock=2.5), replace(REPLICAS[1], clock=0.5)))
    assert (finding.severity, finding.node) == (Severity.WARNING, B)
    assert "2.5 s ahead of 10.0.0.1:6379" in finding.what


def test_a_clock_is_not_blamed_for_this_hosts_own_nor_for_a_slow_answer() -> None:
    assert examine(GroupFacts(tuple(replace(server, clock=-3600.0) for server in SAFE.servers))) == []
    assert examine(group_with(MASTER, replace(REPLICAS[0], clock=1.5, clock_error=0.6))) == []


@pytest.mark.parametrize(
    ("name", "severity"),
    [
        ("replicaof", Severity.UNSAFE),
        ("client|pause", Severity.WARNING),
        ("client|unpause", Severity.WARNING),
        ("multi", Severity.WARNING),
        ("exec", Severity.WARNING),
    ],
)
def test_a_right_that_managers_need_and_do_not_have(name: str, severity: Severity) -> None:
    finding = only(group_with(replace(MASTER, user="failover", denied={name: "no permissions"})))
    assert (finding.severity, finding.node, finding.line) == (severity, A, f"user failover +{name}")
    assert "no permissions" in finding.what


def test_a_command_that_was_renamed_cannot_be_granted() -> None:
    finding = only(group_with(replace(MASTER, denied={"replicaof": "Command 'REPLICAOF' not found"})))
    assert (finding.severity, finding.line) == (Severity.UNSAFE, "remove: rename-command REPLICAOF")


def test_config_set_is_needed_where_a_replica_has_no_password_for_its_master() -> None:
    denied = replace(MASTER, denied={"config|set": "no permissions"})
    assert only(group_with(denied, with_password=True)).line == "user default +config|set"
    assert examine(group_with(denied)) == []
    has_one = replace(denied, settings=SETTINGS | {"masterauth": "set"})
    assert examine(group_with(has_one, with_password=True)) == []


def test_what_may_not_be_looked_at_is_a_warning() -> None:
    assert only(group_with(replace(MASTER, user="failover", settings=None))).line == "user failover +config|get"
    unchecked = only(group_with(replace(MASTER, denied=None)))
    assert (unchecked.severity, unchecked.line) == (Severity.WARNING, "user default +acl|whoami +acl|dryrun")


def test_a_server_that_keeps_nothing_on_disk_is_unsafe_when_something_starts_it_again() -> None:
    finding = only(configured(appendonly="no", save=""))
    assert (finding.severity, finding.line) == (Severity.WARNING, "appendonly yes")
    forgetful = replace(MASTER, settings=SETTINGS | {"appendonly": "no", "save": ""}, supervised="systemd")
    finding = only(group_with(forgetful))
    assert (finding.severity, finding.node) == (Severity.UNSAFE, A)
    assert finding.line == "appendonly yes  (or no automatic restart: Restart=no)"


@pytest.mark.parametrize("kept", [{"appendonly": "no"}, {"save": ""}])
def test_one_kind_of_persistence_is_enough(kept: dict[str, str]) -> None:
    assert examine(configured(**kept)) == []


@pytest.mark.parametrize("transfer", [{"repl_diskless_sync": "no"}, {"repl_diskless_sync_delay": "1"}])
def test_a_full_transfer_that_begins_at_once_is_a_warning(transfer: dict[str, str]) -> None:
    finding = only(configured(**transfer))
    assert finding.severity is Severity.WARNING
    assert finding.line == "repl-diskless-sync yes, repl-diskless-sync-delay 5"


def test_a_backlog_below_redis_default_is_a_warning() -> None:
    finding = only(configured(repl_backlog_size="16384"))
    assert (finding.severity, finding.line) == (Severity.WARNING, "repl-backlog-size 64mb")


def test_more_replicas_demanded_than_are_left_after_a_loss_is_unsafe() -> None:
    finding = only(configured(min_replicas_to_write="2"))
    assert (finding.severity, finding.line) == (Severity.UNSAFE, "min-replicas-to-write 1")


def test_replicas_demanded_that_will_be_there_again_is_a_warning() -> None:
    assert only(configured(min_replicas_to_write="1")).severity is Severity.WARNING


def test_a_demand_for_replicas_without_a_lag_is_none() -> None:
    assert examine(configured(min_replicas_to_write="2", min_replicas_max_lag="0")) == []


def test_a_replica_that_accepts_writes_is_unsafe() -> None:
    finding = only(configured(replica_read_only="no"))
    assert (finding.severity, finding.line) == (Severity.UNSAFE, "replica-read-only yes")


def test_cluster_mode_is_unsafe() -> None:
    assert only(configured(cluster_enabled="yes")).severity is Severity.UNSAFE


def test_another_address_announced_is_a_note_and_its_own_is_nothing() -> None:
    finding = only(configured(replica_announce_ip="192.0.2.1"))
    assert finding.severity is Severity.NOTE
    assert "192.0.2.1:6379" in finding.what
    assert examine(configured(replica_announce_ip="10.0.0.1", replica_announce_port="6379")) == []


@pytest.mark.parametrize(
    ("threshold", "said"), [("5000", "only after 5 s"), ("1350", "only after 1.35 s"), ("0", "never")]
)
def test_a_server_taken_for_dead_before_it_says_that_it_runs_a_script_is_a_warning(threshold: str, said: str) -> None:
    finding = only(configured(busy_reply_threshold=threshold))
    assert (finding.severity, finding.node, finding.line) == (Severity.WARNING, A, "busy-reply-threshold 1000")
    assert said in finding.what
    assert "1.35 s" in finding.why


def test_patient_managers_hear_of_a_script_in_time() -> None:
    slow = tuple(replace(server, settings=SETTINGS | {"busy-reply-threshold": "5000"}) for server in SAFE.servers)
    assert examine(GroupFacts(slow, silence=6.0)) == []
    impatient = replace(SAFE, silence=0.6)
    assert {finding.line for finding in examine(impatient)} == {"busy-reply-threshold 400"}


def test_before_redis_7_the_time_of_a_script_has_another_name() -> None:
    older = {name: value for name, value in SETTINGS.items() if name != "busy-reply-threshold"}
    servers = tuple(replace(server, settings=older | {"lua-time-limit": "5000"}) for server in SAFE.servers)
    assert {finding.line for finding in examine(GroupFacts(servers))} == {"lua-time-limit 1000"}


def test_doctor__account_of_a_proxy_is_refused__is_unsafe() -> None:
    finding = only(replace(SAFE, accounts={"p1": "10.0.0.1:6379 refused"}))
    assert finding.severity is Severity.UNSAFE
    assert "proxy p1: 10.0.0.1:6379 refused" in finding.what
    assert "+role +info" in finding.line


@pytest.mark.parametrize(
    ("role", "what"),
    [
        ("master", "could not write its RDB dump to its disk, and refuses all writes (MISCONF)"),
        ("slave", "could not write its RDB dump to its disk: as a master it refuses all writes"),
    ],
)
def test_doctor__a_full_disk__is_unsafe_and_says_what_a_demotion_does(role: str, what: str) -> None:
    settings = SETTINGS | {"replica-ignore-disk-write-errors": "no", "stop-writes-on-bgsave-error": "yes"}
    full = replace(MASTER, role=role, settings=settings, unsaved="its RDB dump")
    finding = only(group_with(full, replace(MASTER, node=B, role="master"), REPLICAS[1]))
    assert (finding.severity, finding.node, finding.what) == (Severity.UNSAFE, A, what)
    assert "as a replica it aborts at the next write" in finding.why
    patient = replace(full, settings=settings | {"replica-ignore-disk-write-errors": "yes"})
    assert "aborts" not in only(group_with(patient, replace(MASTER, node=B), REPLICAS[1])).why


def test_doctor__a_dump_that_fails_where_writes_go_on__is_a_warning_and_an_append_only_file_is_not() -> None:
    settings = SETTINGS | {"stop-writes-on-bgsave-error": "no"}
    full = replace(MASTER, settings=settings, unsaved="its RDB dump")
    assert only(group_with(full)).severity is Severity.WARNING
    assert only(group_with(replace(full, unsaved="its append-only file"))).severity is Severity.UNSAFE


def test_doctor__too_few_managers_and_such_that_disagree__are_found() -> None:
    unsafe, warning = examine(replace(SAFE, too_few="1 of 2 required managers report", disagreements=("they differ",)))
    assert (unsafe.severity, unsafe.what) == (Severity.UNSAFE, "1 of 2 required managers report")
    assert (warning.severity, warning.what) == (Severity.WARNING, "they differ")


def test_doctor__data_of_others__is_unsafe_and_says_what_it_holds() -> None:
    finding = only(replace(SAFE, strangers={Node("x", 1): "holds data of another history (50 keys"}))
    assert (finding.severity, finding.node) == (Severity.UNSAFE, Node("x", 1))
    assert "50 keys" in finding.what


def test_doctor__paused_managers__are_a_warning() -> None:
    finding = only(replace(SAFE, paused="by me@host"))
    assert (finding.severity, finding.line) == (Severity.WARNING, "rfmanager resume")


def test_doctor__changes_are_slowed_down__is_a_warning_with_the_reason() -> None:
    finding = only(replace(SAFE, slowed_down="2 false alarms: a silent master is given 4 times the usual time"))
    assert finding.severity is Severity.WARNING
    assert "2 false alarms" in finding.what
    assert finding.line.startswith("probe_timeout")


def test_doctor__a_server_under_two_names__is_unsafe_whoever_sees_it() -> None:
    twice = replace(REPLICAS[1], run_id="f00d"), replace(REPLICAS[0], run_id="f00d")
    examined = only(group_with(MASTER, *twice))
    assert (examined.severity, examined.node, examined.what) == (
        Severity.UNSAFE,
        C,
        "is the same server as 10.0.0.2:6379",
    )
    assert only(replace(SAFE, doubles={"f00d": (A, Node("redis1", 6379))})).node == Node("redis1", 6379)
    assert len(examine(replace(group_with(MASTER, *twice), doubles={"f00d": (B, C)}))) == 1


def test_doctor__a_store_that_does_not_answer__is_unsafe_and_nothing_else_is_said_of_it() -> None:
    finding = only(replace(SAFE, store_trouble="ZooKeeper at z:2181 does not answer", granted_timeout=0.0))
    assert (finding.severity, finding.node, finding.what) == (
        Severity.UNSAFE,
        None,
        "ZooKeeper at z:2181 does not answer",
    )


def test_doctor__what_does_not_hold_during_a_migration__is_found_with_its_severity() -> None:
    unsafe = Finding(Severity.UNSAFE, None, "node managers lead", "not fenced", "stop them")
    warning = Finding(Severity.WARNING, None, "one waits", "it takes over", "stop it")
    assert examine(replace(SAFE, migration=[warning, unsafe])) == [unsafe, warning]
