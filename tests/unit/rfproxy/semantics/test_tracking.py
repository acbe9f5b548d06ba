"""CLIENT TRACKING: what the server is told of it, and what it says, with the ids that each side knows."""

from __future__ import annotations

import pytest

from rfproxy.semantics import tracking


def words(text: str) -> list[bytes]:
    return text.encode().split()


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("CLIENT TRACKING ON", 0),
        ("CLIENT TRACKING ON REDIRECT 12", 12),
        ("client tracking on optin redirect 12", 12),
        ("CLIENT TRACKING ON BCAST PREFIX REDIRECT REDIRECT 12", 12),
        ("CLIENT TRACKING ON BCAST PREFIX REDIRECT", 0),
        ("CLIENT TRACKING ON REDIRECT 12 REDIRECT 13", 12),
        ("CLIENT TRACKING ON REDIRECT", 0),
        ("CLIENT TRACKING ON REDIRECT 0", 0),
        ("CLIENT TRACKING ON REDIRECT -1", 0),
        ("CLIENT TRACKING ON REDIRECT x", 0),
    ],
)
def test_the_client_to_be_told_stands_behind_the_first_redirect_that_is_an_option(command: str, number: int) -> None:
    assert tracking.redirects_to(words(command)) == number


def test_the_server_gets_its_own_id_of_that_client() -> None:
    args = words("CLIENT TRACKING ON BCAST REDIRECT 12 PREFIX 12")
    assert tracking.redirected(args, b"7001") == words("CLIENT TRACKING ON BCAST REDIRECT 7001 PREFIX 12")
    assert tracking.redirected(words("CLIENT TRACKING ON"), b"7001") == words("CLIENT TRACKING ON")


def test_each_command_replaces_the_one_before_but_prefixes_of_broadcasts_add_up() -> None:
    commands: list[list[bytes]] = []
    for text in ("ON BCAST PREFIX a REDIRECT 12", "ON BCAST NOLOOP", "ON BCAST PREFIX b REDIRECT 13"):
        commands = tracking.in_force(commands, words(f"CLIENT TRACKING {text}"))
    assert commands == [
        words("CLIENT TRACKING ON BCAST PREFIX a"),
        words("CLIENT TRACKING ON BCAST PREFIX b REDIRECT 13"),
    ]
    assert tracking.in_force(commands, words("CLIENT TRACKING ON OPTIN")) == [words("CLIENT TRACKING ON OPTIN")]


def test_the_last_command_says_what_is_wanted() -> None:
    assert tracking.wanted(()) is None
    found = tracking.wanted([words("CLIENT TRACKING ON BCAST PREFIX a"), words("CLIENT TRACKING ON BCAST REDIRECT 3")])
    assert found is not None
    assert (found.redirect, found.options) == (3, frozenset(["BCAST"]))


def test_all_is_to_be_forgotten_in_the_form_that_who_is_told_understands() -> None:
    """As Redis 7.0.15 answers FLUSHALL: the null is in the protocol of who tracks."""
    assert tracking.everything(3, 3, subscribed=False) == b">2\r\n$10\r\ninvalidate\r\n_\r\n"
    assert tracking.everything(2, 3, subscribed=True) == b">2\r\n$10\r\ninvalidate\r\n$-1\r\n"
    message = b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n"
    assert tracking.everything(2, 2, subscribed=True) == message + b"$-1\r\n"
    assert tracking.everything(3, 2, subscribed=True) == message + b"_\r\n"
    assert tracking.everything(2, 2, subscribed=False) == b"", "RESP2 has no pushes"


def test_a_broken_redirection_is_told_with_the_id_that_the_client_gave() -> None:
    frame = b">2\r\n$21\r\ntracking-redir-broken\r\n:7001\r\n"
    assert tracking.is_broken(frame)
    assert not tracking.is_broken(b">2\r\n$10\r\ninvalidate\r\n_\r\n")
    assert tracking.broken(12) == frame.replace(b"7001", b"12")


def test_trackinginfo_shows_the_id_that_the_client_gave() -> None:
    reply = b"*6\r\n$5\r\nflags\r\n*1\r\n$2\r\non\r\n$8\r\nredirect\r\n:%d\r\n$8\r\nprefixes\r\n*0\r\n"
    assert tracking.info(reply % 7001, 12) == reply % 12
    assert tracking.info(reply % 0, 0) == reply % 0
    assert tracking.info(reply % -1, -1) == reply % -1
