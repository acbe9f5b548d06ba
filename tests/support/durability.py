"""What is said between a proxy whose writes are durable and its master."""

from __future__ import annotations

from tests.support.playbook import FakeClient, FakeConnection, Playbook

OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"
PONG = b"+PONG\r\n"
ENOUGH = b":1\r\n"
TOO_FEW = b":0\r\n"
READONLY = b"-READONLY You can't write against a read only replica.\r\n"
INVALID = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
DENIED = b"-NOPERM this user has no permissions to run the 'wait' command\r\n"


def short(name: str) -> bytes:
    """What a client hears of a write that no replica has."""
    return f"-UNCERTAIN {name} was executed by master m:1 but not replicated to 1 replica within 1 s\r\n".encode()


def heard(play: Playbook, *commands: str, own: bool = False) -> FakeConnection:
    """The master hears these on one connection, and nothing behind them."""
    connections = [play.server("m:1").hears(*command.split(), exclusive=own) for command in commands]
    assert len(set(connections)) == 1
    assert connections[0].commands == []
    return connections[0]


def waited(play: Playbook, *commands: str, own: bool = False) -> FakeConnection:
    """The same, with the question for replicas behind them."""
    behind = ["PING", "WAIT 1 1000"] if own else ["WAIT 1 1000"]
    return heard(play, *commands, *behind, own=own)


def tracker(play: Playbook) -> FakeClient:
    """A client that is told what others change."""
    client = play.client().says("HELLO", "3")
    for server in ("r:1", "m:1"):
        for connection in play.server(server).live:
            if connection.commands == [[b"HELLO", b"3"]]:
                connection.commands.clear()
                connection.answers(b"%0\r\n")
    client.says("CLIENT", "TRACKING", "ON")
    heard(play, "CLIENT TRACKING ON", own=True).answers(OK)
    client.hears(b"%0\r\n" + OK)
    return client
