"""Clients in the middle of transactions, told step by step."""

from __future__ import annotations

from tests.support.playbook import FakeClient, FakeConnection, Playbook

OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"
NIL = b"*-1\r\n"
EXECABORT = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
READONLY = b"-READONLY You can't write against a read only replica.\r\n"
LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
NO_ARGUMENTS = b"-ERR wrong number of arguments for 'get' command\r\n"


def fence(play: Playbook) -> None:
    play.topology(2, replicas=["r:1"])


def promote(play: Playbook) -> None:
    play.topology(3, master="r:1")


def fail_over(play: Playbook) -> None:
    fence(play)
    promote(play)


def told(play: Playbook, server: str, *commands: str) -> FakeConnection:
    """The server hears these commands, and no others, on a connection of the client's own."""
    for command in commands:
        connection = play.server(server).hears(*command.split(), exclusive=True)
    play.server(server).hears_nothing()
    return connection


def asked(play: Playbook, *commands: str) -> FakeClient:
    """A client that has said these commands one after the other, and heard OK, or QUEUED behind MULTI."""
    client = play.client()
    queueing = False
    for command in commands:
        client.says(*command.split())
        told(play, "m:1", command).answers(QUEUED if queueing else OK)
        client.hears(QUEUED if queueing else OK)
        queueing = queueing or command == "MULTI"
    return client
