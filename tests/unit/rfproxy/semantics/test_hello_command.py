"""HELLO: which of its words are a user, a password, a name, and which an error."""

from __future__ import annotations

from typing import Any

import pytest

from rfproxy.core.identity import Account, Identity
from rfproxy.semantics.hello_command import Hello, parse_hello

U = Account(b"u", b"pw")


def words(text: str) -> list[bytes]:
    return [b"" if word == "''" else word.encode() for word in text.split()]


@pytest.mark.parametrize(
    ("text", "hello"),
    [
        ("HELLO", Hello()),
        ("hello 2", Hello(2)),
        ("HELLO 3 AUTH u pw", Hello(3, U)),
        ("HELLO 3 setname app", Hello(3, name=b"app")),
        ("HELLO 3 SETNAME app AUTH u pw", Hello(3, U, b"app")),
        ("HELLO 3 AUTH x y auth u pw SETNAME x SETNAME app", Hello(3, U, b"app")),
        ("HELLO 3 AUTH setname secret", Hello(3, Account(b"setname", b"secret"))),
        ("HELLO 3 AUTH u setname SETNAME auth", Hello(3, Account(b"u", b"setname"), b"auth")),
        ("HELLO 3 SETNAME ''", Hello(3, name=b"")),
        ("HELLO 3 AUTH\0x u pw", Hello(3, U)),
    ],
)
def test_parse_hello__well_formed__each_word_in_its_place(text: str, hello: Hello) -> None:
    assert parse_hello(words(text)) == hello


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("HELLO x", "ERR Protocol version is not an integer or out of range"),
        ("HELLO 03", "ERR Protocol version is not an integer or out of range"),
        ("HELLO AUTH u pw", "ERR Protocol version is not an integer or out of range"),
        ("HELLO 4", "NOPROTO unsupported protocol version"),
        ("HELLO 3 AUTH u", "ERR Syntax error in HELLO option 'AUTH'"),
        ("HELLO 3 SETNAME", "ERR Syntax error in HELLO option 'SETNAME'"),
        ("HELLO 3 SETNAME a b", "ERR Syntax error in HELLO option 'b'"),
        ("HELLO 3 x\0y", "ERR Syntax error in HELLO option 'x'"),
        ("HELLO 3 SETNAME ä", "ERR Client names cannot contain spaces, newlines or special characters."),
    ],
)
def test_parse_hello__malformed__error_of_redis(text: str, error: str) -> None:
    assert parse_hello(words(text)) == error


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("hello", "HELLO"),
        ("HELLO 3 SETNAME app", "HELLO 3"),
        ("HELLO 2 SETNAME a auth u pw", "HELLO 2 AUTH u pw"),
        ("HELLO 3 AUTH setname secret", "HELLO 3 AUTH setname secret"),
    ],
)
def test_words__with_a_name__sent_without_it(text: str, sent: str) -> None:
    hello = parse_hello(words(text))
    assert isinstance(hello, Hello)
    assert hello.words() == words(sent)


class Counted(list[bytes]):
    """Arguments that count how many of them are copied."""

    copied = 0

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        self.copied += len(found) if isinstance(place, slice) else 0
        return found


def test_words__very_many__each_is_looked_at_a_few_times() -> None:
    args = Counted([b"HELLO", b"3", *[b"SETNAME", b"app"] * 1000])
    assert parse_hello(args) == Hello(3, name=b"app")
    assert args.copied <= 2 * len(args)


def test_identity__what_is_not_asked_for__stays() -> None:
    former = Identity(db=4, protocol=3, account=U)
    assert Hello().identity(former) == former
    assert Hello(2).identity(former) == Identity(4, 2, U)
    assert Hello(3, Account(b"v", b"x")).identity(former) == Identity(4, 3, Account(b"v", b"x"))
