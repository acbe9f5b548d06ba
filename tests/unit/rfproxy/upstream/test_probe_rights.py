"""What is remembered of the accounts that may ask."""

from __future__ import annotations

from rfprotocol.topology.topology import Node
from rfproxy.core.identity import Account, Duty, Identity, LaneKey
from rfproxy.upstream.handshake import CHECKS, Asker, Refusal, Welcome
from rfproxy.upstream.probe_rights import FORGET, MOST_ABLE, Plan, Rights

NODE, OTHER = Node("m", 1), Node("r", 1)
OWN, APP, ADMIN = Account(b"proxy", b"px"), Account(b"app", b"pw"), Account(b"admin", b"pw")


def key(account: Account | None, node: Node = NODE) -> LaneKey:
    return LaneKey(node, Duty.MASTER, Identity(account=account))


def mute(rights: Rights, node: Node = NODE, own: Account | None = None) -> None:
    """The server does not let the proxy's account speak."""
    rights.learn(key(APP, node), Plan(Asker.PROXY, own), Welcome(unasked=CHECKS, stranger=True), 0.0)


def asked(rights: Rights, account: Account, welcome: Welcome) -> None:
    """A client's account has asked, or tried to."""
    rights.learn(key(account), Plan(Asker.USER, None), welcome, 0.0)


def test_nothing_known__the_proxy_asks() -> None:
    rights = Rights(OWN)
    assert rights.plan(key(APP)) == rights.plan(key(OWN)) == Plan(Asker.PROXY, OWN)


def test_unimportant_right_missing__is_not_asked_again() -> None:
    rights = Rights(OWN)
    rights.learn(key(APP), Plan(Asker.PROXY, OWN), Welcome(unasked=frozenset([b"CLIENT"])), 0.0)
    assert rights.plan(key(APP)) == Plan(Asker.PROXY, OWN, frozenset([b"CLIENT"]))


def test_proxy_may_not_speak__the_user_asks() -> None:
    rights = Rights(None)
    mute(rights)
    assert rights.plan(key(APP)) == Plan(Asker.USER, None)
    assert rights.plan(key(None)) == Plan(Asker.PROXY, None), "what is refused to a stranger leaves no trace"
    assert rights.plan(key(APP, OTHER)) == Plan(Asker.PROXY, None)


def test_own_password_refused__its_own_connections_try_it_again() -> None:
    rights = Rights(OWN)
    rights.learn(key(OWN), Plan(Asker.PROXY, OWN), Welcome(Refusal.DENIED, "x", account_error="WRONGPASS"), 0.0)
    assert rights.plan(key(OWN)) == Plan(Asker.PROXY, OWN)
    assert rights.plan(key(APP)) == Plan(Asker.USER, OWN)


def test_proxy_may_not_ask__its_own_connections_say_hello() -> None:
    rights = Rights(OWN)
    rights.learn(key(OWN), Plan(Asker.PROXY, OWN), Welcome(unasked=CHECKS), 0.0)
    assert rights.plan(key(OWN)) == Plan(Asker.NOBODY, OWN)
    asked(rights, ADMIN, Welcome())
    assert rights.plan(key(OWN)) == Plan(Asker.OTHER, ADMIN)


def test_user_may_not_ask__nobody_does() -> None:
    rights = Rights(None)
    mute(rights)
    asked(rights, APP, Welcome(unasked=CHECKS))
    assert rights.plan(key(APP)) == Plan(Asker.NOBODY, None)


def test_another_user_may_ask__others_need_not_try() -> None:
    rights = Rights(None)
    mute(rights)
    asked(rights, ADMIN, Welcome())
    assert rights.plan(key(ADMIN)) == Plan(Asker.USER, None)
    assert rights.plan(key(APP)) == Plan(Asker.OTHER, ADMIN)


def test_another_users_password_is_old__it_is_not_used_again() -> None:
    rights = Rights(None)
    mute(rights)
    asked(rights, ADMIN, Welcome())
    rights.learn(key(APP), Plan(Asker.OTHER, ADMIN), Welcome(account_error="WRONGPASS", unasked=CHECKS), 0.0)
    assert rights.plan(key(APP)) == Plan(Asker.USER, None)


def test_another_user_has_lost_its_rights__it_is_not_used_again() -> None:
    rights = Rights(None)
    mute(rights)
    asked(rights, ADMIN, Welcome())
    rights.learn(key(APP), Plan(Asker.OTHER, ADMIN), Welcome(unasked=CHECKS), 0.0)
    assert rights.plan(key(APP)) == Plan(Asker.USER, None)


def test_refused_connections__teach_nothing() -> None:
    rights = Rights(None)
    rights.learn(key(APP), Plan(Asker.PROXY, None), Welcome(Refusal.UNFIT, "LOADING"), 0.0)
    assert rights.plan(key(APP)) == Plan(Asker.PROXY, None)


def test_what_was_refused_long_ago__is_tried_again() -> None:
    rights = Rights(None)
    mute(rights)
    rights.forget(FORGET - 1)
    assert rights.plan(key(APP)).asker is Asker.USER
    rights.forget(FORGET)
    assert rights.plan(key(APP)).asker is Asker.PROXY


def test_many_accounts__are_not_all_remembered() -> None:
    rights = Rights(None)
    mute(rights)
    accounts = [Account(b"u%d" % number, b"pw") for number in range(MOST_ABLE + 1)]
    for account in accounts:
        asked(rights, account, Welcome())
    assert rights.plan(key(accounts[0])) == Plan(Asker.OTHER, accounts[-1])
    assert rights.plan(key(accounts[-1])).asker is Asker.USER
