"""What is remembered of the accounts that may ask."""

from __future__ import annotations

from rfprotocol.topology import Node
from rfproxy.greeting import CHECKS, Account, Asker, Duty, Identity, LaneKey, Refusal, Welcome
from rfproxy.rights import FORGET, MOST_ABLE, Rights

NODE, OTHER = Node("m", 1), Node("r", 1)
OWN, APP, ADMIN = Account(b"proxy", b"px"), Account(b"app", b"pw"), Account(b"admin", b"pw")
NOTHING: frozenset[bytes] = frozenset()


def key(account: Account | None, node: Node = NODE) -> LaneKey:
    return LaneKey(node, Duty.MASTER, Identity(account=account))


def mute(rights: Rights, node: Node = NODE) -> None:
    """The server does not let the proxy's account speak."""
    rights.learn(key(APP, node), Asker.PROXY, Welcome(unasked=CHECKS, stranger=True), 0.0)


def test_nothing_known__the_proxy_asks() -> None:
    rights = Rights(OWN)
    assert rights.plan(key(APP)) == rights.plan(key(OWN)) == (Asker.PROXY, NOTHING)


def test_unimportant_right_missing__is_not_asked_again() -> None:
    rights = Rights(OWN)
    rights.learn(key(APP), Asker.PROXY, Welcome(unasked=frozenset([b"CLIENT"])), 0.0)
    assert rights.plan(key(APP)) == (Asker.PROXY, frozenset([b"CLIENT"]))


def test_proxy_may_not_speak__the_user_asks() -> None:
    rights = Rights(None)
    mute(rights)
    assert rights.plan(key(APP)) == (Asker.USER, NOTHING)
    assert rights.plan(key(None)) == (Asker.PROXY, NOTHING), "what is refused to a stranger leaves no trace"
    assert rights.plan(key(APP, OTHER)) == (Asker.PROXY, NOTHING)


def test_own_password_refused__its_own_connections_try_it_again() -> None:
    rights = Rights(OWN)
    rights.learn(key(OWN), Asker.PROXY, Welcome(Refusal.DENIED, "x", account_error="WRONGPASS"), 0.0)
    assert rights.plan(key(OWN)) == (Asker.PROXY, NOTHING)
    assert rights.plan(key(APP)) == (Asker.USER, NOTHING)


def test_proxy_may_not_ask__its_own_connections_say_hello() -> None:
    rights = Rights(OWN)
    rights.learn(key(OWN), Asker.PROXY, Welcome(unasked=CHECKS), 0.0)
    assert rights.plan(key(OWN)) == (Asker.NOBODY, NOTHING)


def test_user_may_not_ask__nobody_does() -> None:
    rights = Rights(None)
    mute(rights)
    rights.learn(key(APP), Asker.USER, Welcome(unasked=CHECKS), 0.0)
    assert rights.plan(key(APP)) == (Asker.NOBODY, NOTHING)
    assert rights.able(NODE) is None


def test_another_user_may_ask__unknown_ones_need_not_try() -> None:
    rights = Rights(None)
    mute(rights)
    rights.learn(key(ADMIN), Asker.USER, Welcome(), 0.0)
    assert rights.able(NODE) == ADMIN
    assert rights.plan(key(ADMIN)) == (Asker.USER, NOTHING)
    assert rights.plan(key(APP)) == (Asker.NOBODY, NOTHING)
    rights.unable(NODE, ADMIN)
    assert rights.able(NODE) is None


def test_refused_connections__teach_nothing() -> None:
    rights = Rights(None)
    rights.learn(key(APP), Asker.PROXY, Welcome(Refusal.UNFIT, "LOADING"), 0.0)
    assert rights.plan(key(APP)) == (Asker.PROXY, NOTHING)


def test_what_was_refused_long_ago__is_tried_again() -> None:
    rights = Rights(None)
    mute(rights)
    rights.forget(FORGET - 1)
    assert rights.plan(key(APP))[0] is Asker.USER
    rights.forget(FORGET)
    assert rights.plan(key(APP))[0] is Asker.PROXY


def test_many_accounts__are_not_all_remembered() -> None:
    rights = Rights(None)
    mute(rights)
    accounts = [Account(b"u%d" % number, b"pw") for number in range(MOST_ABLE + 1)]
    for account in accounts:
        rights.learn(key(account), Asker.USER, Welcome(), 0.0)
    assert rights.plan(key(accounts[0]))[0] is Asker.NOBODY
    assert rights.plan(key(accounts[-1]))[0] is Asker.USER
