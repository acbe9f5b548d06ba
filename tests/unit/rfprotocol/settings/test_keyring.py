"""Which password a server is told while it is being changed."""

from __future__ import annotations

from rfprotocol.errors import ConfigError
from rfprotocol.settings.keyring import Keyring
from rfprotocol.topology.topology import Node

A, B = Node("a", 1), Node("b", 1)


class File:
    """The password file."""

    def __init__(self, content: str) -> None:
        self.content = content

    def read(self) -> str:
        if not self.content:
            raise ConfigError("password: is empty")
        return self.content


def told(keyring: Keyring[str], node: Node, *passwords: str) -> list[str]:
    """What a server hears that accepts these, until it accepts something or nothing is left to be tried."""
    said = []
    while True:
        said.append(key := keyring.of(node))
        if key in passwords:
            keyring.accepted(node, key)
            return said
        if not keyring.refused(node, key):
            return said


def test_refused__file_says_something_new__is_tried_at_once() -> None:
    file = File("old")
    keyring = Keyring("old", file.read)
    assert told(keyring, A, "old") == ["old"]
    file.content = "new"
    assert told(keyring, A, "old") == ["old"], "nobody reads the file while servers accept what is known"
    assert told(keyring, A, "new") == ["old", "new"]
    assert told(keyring, A, "new") == ["new"]
    assert keyring.accepted_by(A) == "new"


def test_file_ahead_of_the_servers__each_server_hears_what_it_knows() -> None:
    file = File("old")
    keyring = Keyring("old", file.read)
    told(keyring, A, "old")
    file.content = "new"
    assert keyring.reload()
    assert told(keyring, B, "new") == ["new"]
    assert told(keyring, A, "old") == ["new", "old"]
    assert told(keyring, A, "old") == ["old"], "no second refusal in the server's log"
    assert told(keyring, A, "new") == ["old", "new"], "it was changed there, too"


def test_file_ahead_of_the_servers__nobody_said_so__servers_hear_what_they_accepted() -> None:
    file = File("old")
    keyring = Keyring("old", file.read)
    told(keyring, A, "old")
    told(keyring, B, "old")
    file.content = "new"
    assert told(keyring, B, "new") == ["old", "new"]
    assert told(keyring, A, "old") == ["old"]
    assert keyring.newest(A) == "new"


def test_former_key_of_the_program_before__is_told_to_servers_that_know_no_other() -> None:
    keyring = Keyring("new", former="old")
    assert told(keyring, A, "old") == ["new", "old"]
    assert told(keyring, B, "new") == ["new"]


def test_everything_refused__begins_anew() -> None:
    keyring = Keyring("old")
    assert told(keyring, A) == ["old"]
    assert told(keyring, A) == ["old"]
    assert keyring.accepted_by(A) is None
    assert not keyring.rereadable


def test_refused__was_accepted_before__is_accepted_no_more() -> None:
    keyring = Keyring("old")
    told(keyring, A, "old")
    told(keyring, A, "new")
    assert keyring.accepted_by(A) is None


def test_file_written_wrong_and_put_right__what_servers_had_accepted_is_kept() -> None:
    file = File("old")
    keyring = Keyring("old", file.read)
    told(keyring, A, "old")
    file.content = "typo"
    keyring.reload()
    file.content = "new"
    assert told(keyring, A, "old") == ["typo", "new", "old"]


def test_file_unreadable__last_content_holds_and_the_problem_is_told() -> None:
    file = File("")
    keyring = Keyring("old", file.read)
    assert told(keyring, A) == ["old"]
    assert keyring.problem == "password: is empty"
    file.content = "new"
    assert told(keyring, A, "new") == ["old", "new"]
    assert keyring.problem == ""


def test_file_says_again_what_it_said_before__is_told_again() -> None:
    file = File("old")
    keyring = Keyring("old", file.read)
    told(keyring, A, "old")
    file.content = "new"
    assert told(keyring, A, "old") == ["old"]
    keyring.reload()
    assert told(keyring, A, "old") == ["new", "old"]
    file.content = "old"
    assert keyring.reload()
    assert told(keyring, A, "old") == ["old"]
