"""What differs between the servers of a group, and what a change of master makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rfmanager.operator.comparison import COMPARED, differences
from rfmanager.operator.doctor_facts import Finding, GroupFacts, ServerFacts, Severity, User
from rfprotocol.topology.topology import Node

A, B, C = (Node(f"10.0.0.{number}", 6379) for number in (1, 2, 3))
SETTINGS = {
    "busy-reply-threshold": "1000",
    "client-output-buffer-limit": "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
    "lua-time-limit": "1000",
    "maxclients": "10000",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
    "notify-keyspace-events": "AKE",
    "timeout": "0",
}
USERS = {"default": User("on ~* &* +@all", "d1"), "app": User("on ~app:* resetchannels -@all +get", "d2")}
MASTER = ServerFacts(A, role="master", settings=SETTINGS, users=USERS, version="Redis 7.0.15")
REPLICA = replace(MASTER, node=B, role="slave")


def found(server: ServerFacts) -> list[Finding]:
    return list(differences(GroupFacts((MASTER, server, replace(MASTER, node=C, role="slave")))))


def only(server: ServerFacts) -> Finding:
    [finding] = found(server)
    assert finding.node == server.node
    assert finding.why
    return finding


def set_to(**settings: str) -> ServerFacts:
    return replace(REPLICA, settings=SETTINGS | {name.replace("_", "-"): value for name, value in settings.items()})


def test_differences__servers_are_alike__none() -> None:
    assert found(REPLICA) == []
    assert list(differences(GroupFacts(()))) == []


@pytest.mark.parametrize("name", sorted(COMPARED.keys() - {"lua-time-limit"}))
def test_differences__a_setting_differs__says_both_values_and_the_line(name: str) -> None:
    finding = only(set_to(**{name: "999"}))
    assert finding.severity is Severity.WARNING
    assert finding.what == f"{name} is 999, on the master 10.0.0.1:6379 {SETTINGS[name]}"
    assert finding.line == f"{name} {SETTINGS[name]}  (on all alike)"


def test_differences__keyspace_events_are_off_on_a_replica__is_said() -> None:
    finding = only(set_to(notify_keyspace_events=""))
    assert finding.what == 'notify-keyspace-events is "", on the master 10.0.0.1:6379 AKE'
    assert "publishes other events, or none" in finding.why


def test_differences__before_redis_7__the_time_of_a_script_has_another_name() -> None:
    older = {name: value for name, value in SETTINGS.items() if name != "busy-reply-threshold"}
    master = replace(MASTER, settings=older)
    [finding] = differences(GroupFacts((master, replace(REPLICA, settings=older | {"lua-time-limit": "900"}))))
    assert finding.line == "lua-time-limit 1000  (on all alike)"


def test_differences__a_threshold_that_is_wrong_by_itself__is_not_recommended_to_others() -> None:
    assert found(set_to(busy_reply_threshold="5000", lua_time_limit="5000")) == []


def test_differences__the_output_limits_of_forks__have_two_names_for_replicas() -> None:
    renamed = SETTINGS["client-output-buffer-limit"].replace("slave", "replica")
    assert found(set_to(client_output_buffer_limit=renamed)) == []


def test_differences__a_setting_that_one_does_not_know__is_passed_over() -> None:
    assert found(replace(REPLICA, settings={})) == []
    assert found(replace(REPLICA, settings=None)) == []


def test_differences__versions__are_named() -> None:
    finding = only(replace(REPLICA, version="Redis 6.2.7"))
    assert (finding.severity, finding.what) == (
        Severity.WARNING,
        "runs Redis 6.2.7, the master 10.0.0.1:6379 Redis 7.0.15",
    )


def test_differences__a_user_is_missing__is_unsafe() -> None:
    finding = only(replace(REPLICA, users={"default": USERS["default"]}))
    assert (finding.severity, finding.what) == (
        Severity.UNSAFE,
        "lacks users that the master 10.0.0.1:6379 has: app",
    )


def test_differences__a_user_too_many__is_a_warning() -> None:
    finding = only(replace(REPLICA, users=USERS | {"guest": User("on")}))
    assert (finding.severity, finding.what) == (
        Severity.WARNING,
        "has users that the master 10.0.0.1:6379 lacks: guest",
    )


def test_differences__rules__are_shown_and_passwords_never() -> None:
    rules = only(replace(REPLICA, users=USERS | {"app": replace(USERS["app"], rules="off")}))
    assert rules.what == (
        "user app has the rules 'off', on the master 10.0.0.1:6379 'on ~app:* resetchannels -@all +get'"
    )
    passwords = only(replace(REPLICA, users=USERS | {"app": replace(USERS["app"], passwords="secret")}))
    assert (passwords.severity, passwords.what) == (
        Severity.UNSAFE,
        "user app has other passwords than on the master 10.0.0.1:6379",
    )


def test_differences__another_series__writes_the_same_rules_in_other_words() -> None:
    other = replace(REPLICA, version="Redis 7.2.1", users=USERS | {"app": replace(USERS["app"], rules="on allkeys")})
    assert [finding.what.partition(" ")[0] for finding in found(other)] == ["runs"]


def test_differences__users_that_may_not_be_read__are_a_note() -> None:
    finding = only(replace(REPLICA, users=None, user="failover"))
    assert (finding.severity, finding.line) == (Severity.NOTE, "user failover +acl|list")


def test_differences__two_announce_one_address__is_named() -> None:
    first, second = ({"replica-announce-ip": "192.0.2.1", "replica-announce-port": "0"} for _ in range(2))
    servers = replace(MASTER, settings=first), replace(REPLICA, settings=second)
    [finding] = differences(GroupFacts(servers))
    assert finding.what == "announces the same address as 10.0.0.1:6379: 192.0.2.1 port 6379"


def test_differences__a_server_that_could_not_be_asked__has_none() -> None:
    assert found(ServerFacts(B, trouble="cannot be reached")) == []
