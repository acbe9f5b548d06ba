"""CLIENT for the clients of all workers: the questions that workers ask each other, and what they answer.

    client ──CLIENT LIST──> session ──consent──> server
                               └──question──> other workers ──answers──> session ──one reply──> client

The server is asked for its consent first. Then the command waits for the other workers as it has waited for that:
nothing of the same client overtakes it, and when the client leaves, nobody waits for the answers any more. What a
worker does not answer in time is missing from the reply, and is not done.

    LIST [option value ...]                     id line id line ...
    KILL caller-id caller-address filter ...    number of clients
    PLACE id                                    server's process, and the id there of the connection on which it blocks
    UNBLOCK id TIMEOUT|ERROR                    1 if it waited for a master, else 0
    PAUSE milliseconds WRITE|ALL                OK
    UNPAUSE                                     OK
    PAUSED                                      milliseconds and WRITE or ALL, if a pause is in force
    SCRIPTS                                     claim body claim body ..., see `scripts`
    FLUSHED moment                              OK: SCRIPT FLUSH was answered then, or a replica has done it meanwhile

Those about CLIENT TRACKING ... REDIRECT are listed in `remote_redirect`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rfprotocol.resp import resp
from rfproxy.builtin import client_command
from rfproxy.core.peers import Answers, owner
from rfproxy.core.work_items import Place, Verb
from rfproxy.pinned import remote_redirect
from rfproxy.semantics.client_syntax import (
    KillFilter,
    ListFilter,
    Pause,
    Unblock,
    parse_kill,
    parse_list,
    parse_pause,
    parse_unblock,
)
from rfproxy.semantics.tracking import NOBODY

if TYPE_CHECKING:
    from rfproxy.routing.router import Router
    from rfproxy.semantics.transaction_state import Transaction
    from rfproxy.session.session import Session

_NUMBER = re.compile(rb"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Question:
    """What other workers are asked; `owners` are those that it is about, None means all."""

    words: list[bytes]
    owners: frozenset[int] | None = None


# --- asking


def granted(session: Session, verb: Verb, reply: bytes, now: float) -> bool:
    """The server consents: whether the command waits for other workers now. If not, it is the caller's to answer."""
    peers = session.router.peers
    make = _QUESTIONS.get(verb.command.name)
    question = make(session, verb.args, reply) if peers is not None and make is not None else None
    if question is None or _concerns_nobody_else(session, question):
        return False
    effect = client_command.EFFECTS_WITH_OTHERS[verb.command.name]
    is_sound = _is_list if verb.command.name == "CLIENT|LIST" else _is_count

    def finish(answers: Answers, now: float) -> None:
        sound = [words for words in answers if is_sound(words)]
        session.client.write(effect(session, verb.args, reply, now, sound))

    _wait(session, verb, question, finish)
    return True


def located(session: Session, verb: Verb) -> bool:
    """Whether it is known where the client is that CLIENT UNBLOCK is about; if not, the command waits for that."""
    wanted = parse_unblock(verb.args)
    if not isinstance(wanted, Unblock) or session.router.peers is None:
        return True
    process = session.router.process
    if verb.place is not None and verb.place.process == process:
        return True
    question = Question([b"PLACE", b"%d" % wanted.id], frozenset([owner(wanted.id)]))
    if _concerns_nobody_else(session, question):
        return True

    def finish(answers: Answers, now: float) -> None:
        # Ids of connections mean something to one server process only.
        found = next((words[1] for words in answers if len(words) == 2 and words[0] == process.encode()), NOBODY)
        session.pending.appendleft(replace(verb, place=Place(process, found)))

    _wait(session, verb, question, finish)
    return False


def known_ahead(transaction: Transaction, session: Session, verb: Verb) -> bool:
    """Whether CLIENT LIST may be queued behind MULTI: what other workers say is needed as soon as EXEC is answered."""
    return _ahead(session, verb) is None or tuple(verb.args) in transaction.others


def ask_ahead(transaction: Transaction, session: Session, verb: Verb) -> None:
    """The command waits for that."""

    def finish(answers: Answers, now: float) -> None:
        transaction.others[tuple(verb.args)] = [words for words in answers if _is_list(words)]
        session.pending.appendleft(verb)

    if (question := _ahead(session, verb)) is not None:
        _wait(session, verb, question, finish)


def done_at_exec(session: Session, verb: Verb, reply: bytes, now: float) -> bytes | None:
    """The reply to a command behind MULTI for which other workers were asked; None if they were not."""
    transaction = session.ties.transaction if session.ties is not None else None
    answers = transaction.others.get(tuple(verb.args)) if transaction is not None else None
    if answers is None:
        return None
    return client_command.EFFECTS_WITH_OTHERS[verb.command.name](session, verb.args, reply, now, answers)


def _ahead(session: Session, verb: Verb) -> Question | None:
    question = _about_list(session, verb.args, b"") if session.router.peers is not None else None
    return None if question is None or _concerns_nobody_else(session, question) else question


def _is_list(words: list[bytes]) -> bool:
    return len(words) % 2 == 0 and all(map(_NUMBER.fullmatch, words[::2]))


def _is_count(words: list[bytes]) -> bool:
    return len(words) == 1 and _NUMBER.fullmatch(words[0]) is not None


def _concerns_nobody_else(session: Session, question: Question) -> bool:
    return question.owners is not None and question.owners <= {owner(session.number)}


def _wait(session: Session, verb: Verb, question: Question, finish: Callable[[Answers, float], None]) -> None:
    """Ask the other workers. Until they have answered, the session has one more reply to come."""
    peers = session.router.peers
    if peers is None:
        return
    session.busy = verb
    session.outstanding += 1

    def heard(answers: Answers, now: float) -> None:
        if session.busy is verb:  # else the client has left
            session.attend(lambda now: _go_on(session, answers, finish, now), now)

    peers.ask(question.words, question.owners, heard)


def _go_on(session: Session, answers: Answers, finish: Callable[[Answers, float], None], now: float) -> None:
    session.busy = None
    finish(answers, now)
    session.outstanding -= 1
    if not session.outstanding:
        session.settle(now)


def _about_list(session: Session, args: list[bytes], reply: bytes) -> Question | None:
    wanted = parse_list(args)
    if isinstance(wanted, str):
        return None
    return Question([b"LIST", *args[2:]], _owners(wanted.ids))


def _about_kill(session: Session, args: list[bytes], reply: bytes) -> Question | None:
    wanted = parse_kill(args)
    if isinstance(wanted, str):
        return None
    words = [b"KILL", b"%d" % session.number, session.address.encode(), *args[2:]]
    return Question(words, _owners(None if wanted.id is None else [wanted.id]))


def _about_unblock(session: Session, args: list[bytes], reply: bytes) -> Question | None:
    """Only one that no server has to do with: it waits for a master."""
    wanted = parse_unblock(args)
    if isinstance(wanted, str) or reply != resp.integer(0):
        return None
    return Question([b"UNBLOCK", *args[2:]], _owners([wanted.id]))


def _about_pause(session: Session, args: list[bytes], reply: bytes) -> Question | None:
    return None if isinstance(parse_pause(args), str) else Question([b"PAUSE", *args[2:]])


def _about_unpause(session: Session, args: list[bytes], reply: bytes) -> Question | None:
    return Question([b"UNPAUSE"])


def _owners(numbers: Iterable[int] | None) -> frozenset[int] | None:
    return None if numbers is None else frozenset(map(owner, numbers))


_QUESTIONS: dict[str, Callable[[Session, list[bytes], bytes], Question | None]] = {
    "CLIENT|LIST": _about_list,
    "CLIENT|KILL": _about_kill,
    "CLIENT|UNBLOCK": _about_unblock,
    "CLIENT|PAUSE": _about_pause,
    "CLIENT|UNPAUSE": _about_unpause,
}


def join(router: Router) -> None:
    """A worker has just started: a pause that is in force at the others holds its clients, too, and the scripts that
    they have seen are to be known by whichever worker a client comes to."""
    if router.peers is not None:
        router.peers.ask([b"PAUSED"], None, lambda answers, now: _adopt(router, answers, now))
        router.peers.ask([b"SCRIPTS"], None, lambda answers, now: _take_over(router, answers))


def _take_over(router: Router, answers: Answers) -> None:
    for words in answers:
        router.scripts.take_over(words)


def _adopt(router: Router, answers: Answers, now: float) -> None:
    for words in answers:
        pause = parse_pause([b"CLIENT", b"PAUSE", *words]) if len(words) == 2 else ""
        if isinstance(pause, Pause):
            client_command.pause(router, pause, now)


# --- answering


def answer(router: Router, question: list[bytes], now: float) -> list[bytes] | None:
    """What this worker has to say, after it has done what it was asked for; None: it does not understand."""
    respond = _ANSWERS.get(question[0]) if question else None
    return respond(router, question[1:], now) if respond is not None else None


def _list(router: Router, args: list[bytes], now: float) -> list[bytes] | None:
    wanted = parse_list([b"CLIENT", b"LIST", *args])
    if not isinstance(wanted, ListFilter):
        return None
    return [word for number, line in client_command.lines(router, wanted, now) for word in (b"%d" % number, line)]


def _kill(router: Router, args: list[bytes], now: float) -> list[bytes] | None:
    if len(args) < 3 or not _NUMBER.fullmatch(args[0]):
        return None
    wanted = parse_kill([b"CLIENT", b"KILL", *args[2:]])
    if not isinstance(wanted, KillFilter):
        return None
    killed = client_command.hang_up_on(router, wanted, int(args[0]), args[1].decode(errors="replace"), now)
    return [b"%d" % len(killed)]


def _place(router: Router, args: list[bytes], now: float) -> list[bytes] | None:
    if len(args) != 1 or not _NUMBER.fullmatch(args[0]):
        return None
    return [router.process.encode(), client_command.place_of(router, int(args[0]))]


def _unblock(router: Router, args: list[bytes], now: float) -> list[bytes] | None:
    wanted = parse_unblock([b"CLIENT", b"UNBLOCK", *args])
    if not isinstance(wanted, Unblock):
        return None
    return [b"%d" % client_command.unblock(router, wanted, now)]


def _pause(router: Router, args: list[bytes], now: float) -> list[bytes] | None:
    wanted = parse_pause([b"CLIENT", b"PAUSE", *args])
    if not isinstance(wanted, Pause):
        return None
    client_command.pause(router, wanted, now)
    return [b"OK"]


def _unpause(router: Router, args: list[bytes], now: float) -> list[bytes] | None:
    router.let_go(now)
    return [b"OK"]


def _paused(router: Router, args: list[bytes], now: float) -> list[bytes] | None:
    pause = router.pause
    if pause is None or pause.until <= now:
        return []
    return [b"%d" % max(1, round((pause.until - now) * 1000)), b"WRITE" if pause.writes_only else b"ALL"]


def _scripts(router: Router, args: list[bytes], now: float) -> list[bytes] | None:
    return router.scripts.hand_over()


def _flushed(router: Router, args: list[bytes], now: float) -> list[bytes] | None:
    try:
        moment = float(args[0]) if args else now  # workers of a former version do not say it
    except ValueError:
        return None
    router.scripts.forget(moment)
    return [b"OK"]


_ANSWERS: dict[bytes, Callable[[Router, list[bytes], float], list[bytes] | None]] = {
    b"LIST": _list,
    b"KILL": _kill,
    b"PLACE": _place,
    b"UNBLOCK": _unblock,
    b"PAUSE": _pause,
    b"UNPAUSE": _unpause,
    b"PAUSED": _paused,
    b"SCRIPTS": _scripts,
    b"FLUSHED": _flushed,
    **remote_redirect.ANSWERS,
}
