"""A client's commands become the entries of its session's queue.

Consecutive commands that may travel together are one run, as the bytes they came in. Whatever concerns the
connection is a verb. MULTI and all that belongs to it, when it came in one packet, is one block: nothing of it can
be seen or interrupted by others, on whichever lane it travels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rfprotocol.resp import resp
from rfprotocol.resp.command_table import Command, Route, lookup
from rfprotocol.resp.fast_path import LARGE, MOST, Glance
from rfproxy.core.work_items import ANYWHERE, NEEDS_MASTER, Entry, Form, Need, Run, Verb, alone
from rfproxy.semantics.blocking import WAITS

if TYPE_CHECKING:
    from rfproxy.session.session import Session

BULKY: Final = LARGE
"""Bytes from which on what came together travels on a lane of its own: nobody waits until it has passed, and where the
server does not take it (proto-max-bulk-len), nobody else's connection is closed."""
MANY: Final = MOST
"""Commands from which on it does so, too."""

# By name, and final: looking up a member of an enumeration costs several times as much.
_REPLICA: Final = Route.REPLICA
_MASTER: Final = Route.MASTER
_OWN: Final = Route.OWN

_TOGETHER: Final = frozenset([_REPLICA, _MASTER, _OWN])
_IN_BLOCKS: Final = _TOGETHER | {Route.URGENT, Route.BLOCKING}


def queue(session: Session, commands: list[list[bytes]], raw: bytes) -> Command:
    """Append what `commands`, which came as the bytes `raw`, become; returns what the last one is."""
    need = ANYWHERE
    for args in commands:
        command = lookup(args)
        route = command.route
        if route is _REPLICA:
            if command.not_everywhere and need is ANYWHERE and not _its_replica_has(session, command):
                need = NEEDS_MASTER
            continue
        if route is _MASTER:
            if need is ANYWHERE:
                need = NEEDS_MASTER
        elif route is _OWN:
            need = Need.OWN
        else:
            _queue_apart(session, commands)
            return lookup(commands[-1])
    if len(raw) > BULKY or len(commands) > MANY:
        need = alone(need)
    session.pending.append(Run(session, commands, raw, need))
    return command


def queue_plain(session: Session, plain: Glance, data: bytes) -> bytes:
    """Append a run of what was seen of plain commands; returns what comes behind them."""
    raw = data if plain.end == len(data) else data[: plain.end]
    session.pending.append(Run(session, plain.count, raw, ANYWHERE if plain.reads else NEEDS_MASTER))
    return data[plain.end :]


def entry(session: Session, args: list[bytes]) -> Entry:
    """What one command becomes."""
    command = lookup(args)
    raw = resp.encode_command(args)
    if command.route in _TOGETHER:
        return Run(session, [args], raw, _need(session, [args], raw))
    if command.route is Route.CURSOR:
        return Run(session, [args], raw, Need.MASTER, Form.CURSOR)
    if command.route is Route.URGENT:
        return Run(session, [args], raw, Need.URGENT)
    return Verb(args, command, raw)


def _queue_apart(session: Session, commands: list[list[bytes]]) -> None:
    """Commands some of which cannot be part of a run."""
    together: list[list[bytes]] = []
    place = 0
    while place < len(commands):
        args = commands[place]
        if lookup(args).route in _TOGETHER:
            together.append(args)
            place += 1
            continue
        _queue_run(session, together)
        together = []
        end = _end_of_block(commands, place)
        session.pending.append(_block(session, commands[place:end]) if end else entry(session, args))
        place = end or place + 1
    _queue_run(session, together)


def _queue_run(session: Session, commands: list[list[bytes]]) -> None:
    if commands:
        raw = resp.encode_commands(commands)
        session.pending.append(Run(session, commands, raw, _need(session, commands, raw)))


def _block(session: Session, commands: list[list[bytes]]) -> Run:
    raw = resp.encode_commands(commands)
    need = Need.OWN if _need(session, commands, raw) in (Need.OWN, Need.ANY_OWN) else Need.MASTER
    return Run(session, commands, raw, need, Form.BLOCK)


def _its_replica_has(session: Session, command: Command) -> bool:
    return session.router.replica_has(session.number, command, session.seen)


def _need(session: Session, commands: list[list[bytes]], raw: bytes) -> Need:
    routes = {lookup(args).route for args in commands}
    if Route.OWN in routes:
        return Need.OWN
    need = Need.ANY if routes == {Route.REPLICA} else Need.MASTER
    recent = [command for command in map(lookup, commands) if command.not_everywhere]
    if not all(_its_replica_has(session, command) for command in recent):
        need = Need.MASTER
    return alone(need) if len(raw) > BULKY or len(commands) > MANY else need


def _end_of_block(commands: list[list[bytes]], start: int) -> int:
    """Where a transaction ends that begins at `start` and is here as a whole; 0 when there is none."""
    if lookup(commands[start]).name != "MULTI" or len(commands[start]) != 1:
        return 0
    for place in range(start + 1, len(commands)):
        command = lookup(commands[place])
        if command.name == "EXEC":  # which ends it even when it is refused; DISCARD may be denied to a user
            return place + 1 if len(commands[place]) == 1 else 0
        if command.route not in _IN_BLOCKS or command.name in WAITS:  # `transactions` puts their numbers right
            return 0
    return 0
