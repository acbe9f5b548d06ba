"""Whom the servers of a group are compared with."""

from __future__ import annotations

from rfmanager.operator.doctor_facts import GroupFacts, ServerFacts, User
from rfprotocol.topology.topology import Node

A, B, C = (ServerFacts(Node(name, 6379), role="slave") for name in "abc")


def test_yardstick__a_master_among_them__is_it() -> None:
    master = ServerFacts(Node("m", 6379), role="master")
    assert GroupFacts((A, master, B)).yardstick is master


def test_yardstick__no_master__is_the_first_that_could_be_asked() -> None:
    away = ServerFacts(Node("x", 6379), trouble="cannot be reached", role="master")
    assert GroupFacts((away, B, C)).yardstick is B
    assert GroupFacts((away,)).yardstick is None


def test_user__printed__shows_nothing_of_its_passwords() -> None:
    assert "digest" not in repr(User("on +@all", "digest"))
