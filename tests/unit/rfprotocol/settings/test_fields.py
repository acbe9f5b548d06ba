"""The types of option values, as users write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, TypeAdapter, ValidationError

from rfprotocol.settings.fields import STORE_OPTIONS, Address, CommonOptions, Count, Servers, ZnodePath, ZooKeeper
from rfprotocol.topology.topology import Node

HOSTS = st.sampled_from(["localhost", "redis-1.example.net", "10.0.0.1", "::1", "2001:db8::1", "fe80::1%eth0"])
NODES = st.builds(Node, HOSTS, st.integers(1, 65535))


def read(kind: Any, value: object) -> Any:
    return TypeAdapter(kind).validate_python(value)


@given(st.lists(NODES, min_size=1, unique=True))
def test_servers_are_read_from_text_lists_and_mappings_alike(nodes: list[Node]) -> None:
    expected = tuple(nodes)
    assert read(Servers, ",".join(map(str, nodes))) == expected
    assert read(Servers, " , ".join(map(str, nodes)) + ",") == expected
    assert read(Servers, list(map(str, nodes))) == expected
    assert read(Servers, [{"host": node.host, "port": str(node.port)} for node in nodes]) == expected
    assert read(Servers, nodes) == expected


def test_a_server_that_is_listed_twice_counts_once() -> None:
    assert read(Servers, "a:1,b:2,a:1") == (Node("a", 1), Node("b", 2))


@pytest.mark.parametrize(
    "wrong",
    [
        *("a:", "a:b", "a:0", "a:65536", "6379", "::1", "::1:6379", "2001:db8::1", "[::1", "a:1 b:2", "a b", 5, [5]),
        *([{"port": "1"}], [{"host": "a", "port": "b"}], [{"host": "a", "db": "1"}], [{"host": ""}]),
    ],
)
def test_a_server_that_is_not_host_and_port_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError, match="host"):
        read(Servers, wrong)


@pytest.mark.parametrize(
    "given",
    [
        "localhost,[::1]",
        "localhost:6379,localhost,[::1]:6379",
        ["localhost", "[::1]"],
        [{"host": "localhost"}, {"host": "::1"}],
    ],
)
def test_servers__without_a_port__listen_on_that_of_redis(given: object) -> None:
    assert read(Servers, given) == (Node("localhost", 6379), Node("::1", 6379))


@pytest.mark.parametrize("bare", ["::1", "2001:db8::1"])
def test_servers__a_bare_ipv6_address__refused_with_how_it_is_written(bare: str) -> None:
    with pytest.raises(ValidationError, match=r"an IPv6 address is written \[::1\]:6379"):
        read(Servers, bare)


@pytest.mark.parametrize("none", ["0", "00", 0])
def test_count__none__refused_with_what_to_write(none: object) -> None:
    with pytest.raises(ValidationError, match=f"should be at least 1, not {none!r}: write 1"):
        read(Count, none)
    assert read(Count, "1") == 1


def test_an_address_to_listen_on_may_have_port_zero() -> None:
    assert read(Address, "[::]:0") == Node("::", 0)
    assert read(Address, "127.0.0.1:6380") == Node("127.0.0.1", 6380)
    assert read(Address, Node("a", 1)) == Node("a", 1)


@pytest.mark.parametrize("wrong", ["6380", ":6380", "localhost", 6380])
def test_an_address_has_a_host(wrong: object) -> None:
    with pytest.raises(ValidationError):
        read(Address, wrong)


@pytest.mark.parametrize(
    ("given", "connection"),
    [
        ("a:1", "a:1"),
        (" a:1, [::1]:2 ", "a:1,[::1]:2"),
        ("a:1,b:2/chroot/x", "a:1,b:2/chroot/x"),
        (["a:1", "b:2"], "a:1,b:2"),
        (["a:1", "b:2/x"], "a:1,b:2/x"),
        ("", ""),
    ],
)
def test_zookeeper_servers_become_one_text_with_the_chroot_at_its_end(given: object, connection: str) -> None:
    assert read(ZooKeeper, given) == connection


@pytest.mark.parametrize("server", ["zk1", "[::1]"])
def test_zookeeper__a_server_without_a_port__refused_with_what_to_write(server: str) -> None:
    for servers in (server, f"a:1,{server}/chroot", [server, "a:1"]):
        with pytest.raises(ValidationError) as caught:
            read(ZooKeeper, servers)
        assert f"'{server}' has no port: write {server}:2181" in str(caught.value)


@pytest.mark.parametrize("wrong", ["a", "a:", "::1", "a:1/", "a:1/x/", "a:1/x,b:2", ["a:1/x", "b:2"]])
def test_zookeeper_servers_without_a_port_or_with_a_broken_chroot_are_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        read(ZooKeeper, wrong)


@pytest.mark.parametrize("wrong", ["x", "/", "/x/", "//x", "/x y", 5])
def test_a_znode_path_starts_with_a_slash_and_does_not_end_in_one(wrong: object) -> None:
    assert read(ZnodePath, "/x/y-z.1") == "/x/y-z.1"
    with pytest.raises(ValidationError, match="znode path"):
        read(ZnodePath, wrong)


def test_choices_may_be_ruby_symbols() -> None:
    assert CommonOptions.model_validate({"log_level": ":debug"}).log_level == "debug"


def test_the_chroot_is_appended_to_the_servers() -> None:
    assert CommonOptions(zkservers="a:1,b:2/x", chroot="/y").zookeeper == "a:1,b:2/x/y"


def test_the_root_of_the_records_cannot_be_empty() -> None:
    with pytest.raises(ValidationError):
        CommonOptions(znode_path="")


def test_options_do_not_change_and_do_not_show_the_password() -> None:
    options = CommonOptions(password=SecretStr("hunter2"))
    assert "hunter2" not in repr(options) + str(options) + options.model_dump_json()
    with pytest.raises(ValidationError):
        options.username = "x"


def test_a_command_for_zookeeper_takes_options_that_exist() -> None:
    assert set(STORE_OPTIONS) <= set(CommonOptions.model_fields)
    assert "password" not in STORE_OPTIONS
