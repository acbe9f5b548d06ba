"""`INFO proxy`: what this proxy knows and has done, in the form of Redis' own sections."""

from __future__ import annotations

import pytest

from rfproxy.builtin.info import report
from rfproxy.core.durability import Durability
from rfproxy.core.policy import Policy
from tests.support.playbook import Playbook


@pytest.fixture
def play() -> Playbook:
    return Playbook()


def fields(play: Playbook) -> dict[str, str]:
    text = report(play.router, play.time).decode()
    head, *lines = text.split("\r\n")
    assert head == "# Proxy"
    assert lines.pop() == "", "the last line ends like all others"
    return dict(line.split(":", 1) for line in lines)


def test_before_anything_is_known_it_says_so(play: Playbook) -> None:
    seen = fields(play)
    assert seen["proxy_epoch"] == seen["proxy_epoch_acknowledged"] == "-1"
    assert seen["proxy_state"] == "fenced"
    assert seen["proxy_state_means"] == "there is no master, so writes wait"
    assert seen["proxy_master"] == seen["proxy_replicas"] == seen["proxy_phase"] == ""


def test_the_topology_in_force_is_shown(play: Playbook) -> None:
    play.topology(4, master="m:1", replicas=["r:1", "r:2"])
    seen = fields(play)
    assert seen["proxy_epoch"] == seen["proxy_epoch_acknowledged"] == "4"
    assert (seen["proxy_state"], seen["proxy_phase"], seen["proxy_master"]) == ("open", "serving", "m:1")
    assert seen["proxy_replicas"] == "r:1,r:2"


def test_who_waits_during_a_change_is_counted(play: Playbook) -> None:
    play.topology(1, master="m:1", replicas=["r:1"])
    play.topology(2)
    play.client().pipelines("INCR k", "INCR k")
    seen = fields(play)
    assert (seen["proxy_state"], seen["proxy_clients_waiting"]) == ("fenced", "1")
    play.wait(0.5)
    play.topology(3, master="r:1")
    seen = fields(play)
    assert seen["proxy_clients_waiting"] == "0"
    assert (seen["proxy_change_held"], seen["proxy_change_longest_wait"]) == ("1", "0.500000")


def test_what_clients_noticed_of_the_last_change_is_counted(play: Playbook) -> None:
    play.topology(1, master="m:1")
    play.client().says("INCR", "k")
    play.client().says("SET", "k", "v")
    play.server("m:1").dies()
    seen = fields(play)
    assert (seen["proxy_change_uncertain"], seen["proxy_change_replayed"], seen["proxy_errors"]) == ("1", "1", "1")


def test_connections_are_told_apart_by_what_they_are_for(play: Playbook) -> None:
    play.topology(1, master="m:1", replicas=["r:1"])
    play.client().says("GET", "k")
    play.client().says("INCR", "k")
    play.client().says("BLPOP", "q", "0")
    seen = fields(play)
    assert seen["proxy_lanes_to_master"] == "2"
    assert seen["proxy_lanes_to_replicas"] == seen["proxy_lanes_exclusive"] == "1"


def test_writes_that_are_waited_for_are_counted_and_those_that_no_replica_has() -> None:
    play = Playbook(Policy(durable=Durability()))
    play.topology(1, master="m:1")
    play.client().says("INCR", "k")
    play.server("m:1").hears("INCR", "k").answers(b":1\r\n:0\r\n")
    seen = fields(play)
    assert seen["proxy_write_safety"] == "durable"
    assert (seen["proxy_batches_waited_for"], seen["proxy_writes_unreplicated"]) == ("1", "1")


def test_reads_that_the_master_had_to_serve_are_counted(play: Playbook) -> None:
    play.topology(1, master="m:1")
    play.client().says("GET", "k")
    assert fields(play)["proxy_reads_spilled"] == "1"


def test_report__servers_busy_and_silent__named(play: Playbook) -> None:
    play.topology(1, master="m:1", replicas=["r:1"])
    play.client().says("FLUSHALL")
    play.server("m:1").silent = True
    play.client().says("GET", "k")
    play.server("r:1").hears("GET", "k")
    play.server("r:1").silent = True
    play.listen(1.2)
    seen = fields(play)
    assert (seen["proxy_busy_servers"], seen["proxy_silent_servers"]) == ("m:1", "r:1")


def test_a_lapsed_lease_is_explained(play: Playbook) -> None:
    play.topology(master="m:1")
    assert fields(play)["proxy_state_means"] == "writes pass"
    play.lease.revoke()
    seen = fields(play)
    assert seen["proxy_state"] == "lapsed"
    assert seen["proxy_state_means"] == "the lease has lapsed for want of a word from ZooKeeper, so writes wait"


def test_report__the_gems_managers_lead__says_that_nothing_is_fenced_and_what_that_means(play: Playbook) -> None:
    play.topology(master="m:1")
    seen = fields(play)
    assert seen["proxy_fencing"] == "yes"
    assert seen["proxy_fencing_means"].startswith("rfmanager leads")
    play.router.unfenced = True
    seen = fields(play)
    assert seen["proxy_fencing"] == "no"
    assert "a master that they depose may acknowledge writes that are lost" in seen["proxy_fencing_means"]
