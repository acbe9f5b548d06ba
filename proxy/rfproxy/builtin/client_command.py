"""CLIENT, answered for the proxy's own clients as Redis answers for its own; and `INFO proxy`.

Of each command here: what the server is asked in its place (QUESTIONS; the command itself if nothing is listed), and
what it does when the server has nothing against it (EFFECTS).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rfprotocol.resp import resp
from rfprotocol.resp.command_table import Route
from rfproxy.builtin import reply_mode
from rfproxy.builtin.info import report
from rfproxy.builtin.reply_mode import Replies
from rfproxy.core.peers import Answers
from rfproxy.core.work_items import Hangup, Ready, Verb
from rfproxy.pinned.session_registry import sessions_of
from rfproxy.semantics import tracking
from rfproxy.semantics.blocking import nothing
from rfproxy.semantics.client_syntax import (
    UNBLOCKED,
    ClientFlag,
    ClientInfo,
    KillFilter,
    ListFilter,
    Pause,
    ReplyMode,
    Tracking,
    Unblock,
    good_name,
    kill_reply,
    line,
    listing,
    matches,
    parse_kill,
    parse_list,
    parse_on_off,
    parse_pause,
    parse_reply,
    parse_unblock,
    verbatim,
)
from rfproxy.semantics.tracking import NOBODY

if TYPE_CHECKING:
    from rfproxy.routing.router import Router
    from rfproxy.session.session import Session

OK = resp.simple("OK")

_PROXY = b"rfproxy"


def describe(session: Session, now: float) -> ClientInfo:
    """What CLIENT LIST shows of a session."""
    ties, account = session.ties, session.identity.account
    stream = ties.stream if ties else None
    transaction = ties.transaction if ties else None
    queued = transaction.queued if transaction and transaction.queueing else None
    return ClientInfo(
        id=session.number,
        addr=session.address,
        laddr=session.local,
        fd=session.client.fd,
        name=session.name,
        age=int(now - session.born),
        idle=int(now - session.seen),
        flags=_flags(session),
        db=session.identity.db,
        sub=stream.count(b"SUBSCRIBE") if stream else 0,
        psub=stream.count(b"PSUBSCRIBE") if stream else 0,
        ssub=stream.count(b"SSUBSCRIBE") if stream else 0,
        multi=-1 if queued is None else len(queued),
        multi_mem=transaction.size if transaction and queued is not None else 0,
        qbuf=session.reader.pending + (session.inbox.size if session.inbox is not None else 0),
        omem=session.client.unread,
        oll=int(session.client.unread > 0),
        cmd=session.latest.name.lower(),
        user=account.username or b"default" if account else b"default",
        redir=_redirection(session),
        resp=session.identity.protocol,
    )


def _flags(session: Session) -> ClientFlag:
    ties = session.ties
    stream = ties.stream if ties else None
    transaction = ties.transaction if ties else None
    tracked = _tracking(session)
    flags = {
        ClientFlag.MONITOR: stream is not None and stream.monitor,
        ClientFlag.SUBSCRIBED: stream is not None and stream.subscribed and not stream.monitor,
        ClientFlag.MULTI: transaction is not None and transaction.queueing,
        ClientFlag.BLOCKED: session.blocked,
        ClientFlag.TRACKING: tracked is not None,
        ClientFlag.REDIRECT_BROKEN: _redirection(session) > 0 and (ties is None or ties.target is None),
        ClientFlag.BROADCAST: tracked is not None and "BCAST" in tracked.options,
        ClientFlag.DIRTY: transaction is not None and transaction.pretending,
        ClientFlag.NO_EVICT: not session.evictable,
    }
    found = ClientFlag(0)
    for flag, is_set in flags.items():
        if is_set:
            found |= flag
    return found


def _redirection(session: Session) -> int:
    """The client that invalidations go to; 0 is this one, -1 means no tracking."""
    tracked = _tracking(session)
    return tracked.redirect if tracked is not None else -1


def _tracking(session: Session) -> Tracking | None:
    return tracking.wanted(session.ties.settings.get("CLIENT|TRACKING", ())) if session.ties else None


# --- what the server is asked


def _ask_name(session: Session, args: list[bytes]) -> list[bytes] | None:
    return [*args[:2], _PROXY] if good_name(args[2]) else None


def _ask_about(session: Session, args: list[bytes]) -> list[bytes] | None:
    """SETINFO: the value does not matter, unless it is refused."""
    return [*args[:3], _PROXY] if good_name(args[3]) else None


def _ask_list(session: Session, args: list[bytes]) -> list[bytes] | None:
    return None if isinstance(parse_list(args), str) else [*args[:2], b"ID", NOBODY]


def _ask_kill(session: Session, args: list[bytes]) -> list[bytes] | None:
    """The server knows which users there are; of several ids the last one counts."""
    wanted = parse_kill(args)
    if isinstance(wanted, str):  # never as it is: a later Redis may find in it whom to kill
        return [*args[:2], b"ID", NOBODY]
    return [*args[:2], *([] if wanted.old_style else args[2:]), b"ID", NOBODY]


def _ask_reply(session: Session, args: list[bytes]) -> list[bytes] | None:
    return None if isinstance(parse_reply(args), str) else [*args[:2], b"ON"]


def _ask_no_evict(session: Session, args: list[bytes]) -> list[bytes] | None:
    return None if isinstance(parse_on_off(args), str) else [*args[:2], b"OFF"]


def _ask_unblock(session: Session, args: list[bytes]) -> list[bytes] | None:
    """On the server, the client is the connection that carries its blocking command."""
    wanted = parse_unblock(args)
    if not isinstance(wanted, Unblock):
        return None
    return [*args[:2], place_of(session.router, wanted.id), *args[3:]]


def place_of(router: Router, number: int) -> bytes:
    """The server's id of the connection that carries the blocking command of a client of this worker."""
    blocked = sessions_of(router).get(number)
    welcome = blocked.own.welcome if blocked and blocked.blocked and blocked.own else None
    if blocked and blocked.own:
        blocked.own.spoilt = True  # when this arrives, it must not be somebody else's
    return b"%d" % welcome.client_id if welcome and welcome.client_id else NOBODY


def _ask_pause(session: Session, args: list[bytes]) -> list[bytes] | None:
    """Of the server only writes: a pause of all commands silences it for the managers, who take that for its end."""
    return None if isinstance(parse_pause(args), str) else [*args[:3], b"WRITE"]


# --- what it then does


def _id(session: Session, args: list[bytes], reply: bytes, now: float) -> bytes:
    return resp.integer(session.number)


def _getname(session: Session, args: list[bytes], reply: bytes, now: float) -> bytes:
    return resp.bulk(session.name) if session.name else resp.null(session.identity.protocol)


def _setname(session: Session, args: list[bytes], reply: bytes, now: float) -> bytes:
    session.name = args[2]
    return OK


def _as_it_is(session: Session, args: list[bytes], reply: bytes, now: float) -> bytes:
    return reply


def _info(session: Session, args: list[bytes], reply: bytes, now: float) -> bytes:
    return listing([describe(session, now)], session.identity.protocol)


def lines(router: Router, wanted: ListFilter, now: float) -> list[tuple[int, bytes]]:
    """The clients of this worker, as CLIENT LIST shows them; each with its id."""
    everyone = [describe(one, now) for one in sessions_of(router).values()]
    return [(info.id, line(info)) for info in wanted.select(everyone)]


def _list(session: Session, args: list[bytes], reply: bytes, now: float, others: Answers = ()) -> bytes:
    """By their ids: in the order in which they came, worker by worker."""
    wanted = parse_list(args)
    if isinstance(wanted, str):
        return resp.error(wanted)
    found = dict(lines(session.router, wanted, now))
    for words in others:
        found.update((int(number), text) for number, text in zip(words[::2], words[1::2], strict=False))
    numbers = sorted(found) if wanted.ids is None else [number for number in wanted.ids if number in found]
    return verbatim(b"".join([found[number] for number in numbers]), session.identity.protocol)


def _kill(session: Session, args: list[bytes], reply: bytes, now: float, others: Answers = ()) -> bytes:
    wanted = parse_kill(args)
    if isinstance(wanted, str):
        return resp.error(wanted)
    killed = hang_up_on(session.router, wanted, session.number, session.address, now)
    if session in killed:
        session.pending.clear()  # closed when what is being answered is answered
        session.inbox = None
        session.pending.append(Hangup(b""))
    return kill_reply(wanted, len(killed) + sum(int(words[0]) for words in others))


def hang_up_on(router: Router, wanted: KillFilter, caller: int, by: str, now: float) -> list[Session]:
    """Close the clients of this worker that match; returns them. Not the caller: it is to hear the reply first."""
    everyone = [(one, describe(one, now)) for one in sessions_of(router).values()]
    killed = [one for one, info in everyone if matches(wanted, info, caller)]
    for one in killed:
        if one.number != caller:
            router.log.info("client_killed", client=one.address, by=by, epoch=router.epoch)
            one.client.abort()
            one.close(now)
    return killed


def _unblock(session: Session, args: list[bytes], reply: bytes, now: float, others: Answers = ()) -> bytes:
    """Who waits for a master rather than for an element is unblocked here."""
    wanted = parse_unblock(args)
    if isinstance(wanted, str) or reply != resp.integer(0):
        return reply
    found = unblock(session.router, wanted, now) or any(words == [b"1"] for words in others)
    return resp.integer(1) if found else reply


def unblock(router: Router, wanted: Unblock, now: float) -> bool:
    """Answer a client of this worker whose blocking command waits for a master; whether there is such a client."""
    waiting = sessions_of(router).get(wanted.id)
    verb = waiting.pending[0] if waiting and waiting.pending and not waiting.outstanding else None
    if waiting is None or not isinstance(verb, Verb) or verb.command.route is not Route.BLOCKING:
        return False
    answer = resp.error(UNBLOCKED) if wanted.with_error else nothing(verb.command.name, waiting.identity.protocol)
    waiting.pending[0] = Ready(answer)
    waiting.pump(now)
    return True


def _no_evict(session: Session, args: list[bytes], reply: bytes, now: float) -> bytes:
    session.evictable = args[2].upper() == b"OFF"
    return OK


def _reply(session: Session, args: list[bytes], reply: bytes, now: float) -> bytes:
    mode = parse_reply(args)
    if mode is ReplyMode.ON:
        reply_mode.say(session, Replies.ON)
        session.client.write(OK)
    elif mode is ReplyMode.OFF:
        reply_mode.say(session, Replies.OFF)
    elif session.replies is not Replies.OFF:
        reply_mode.say(session, Replies.SKIP_NEXT)
    return b""


def _pause(session: Session, args: list[bytes], reply: bytes, now: float, others: Answers = ()) -> bytes:
    """The server holds the writes of its connections back, each of which carries many clients' commands: hold them
    here, so that none waits behind another one's. Reads, if they are to wait, wait here alone."""
    wanted = parse_pause(args)
    if not isinstance(wanted, str):
        pause(session.router, wanted, now)
    return OK


def pause(router: Router, wanted: Pause, now: float) -> None:
    """Hold the clients of this worker."""
    router.hold_back(now + wanted.milliseconds / 1000, writes_only=wanted.writes_only, now=now)


def _unpause(session: Session, args: list[bytes], reply: bytes, now: float, others: Answers = ()) -> bytes:
    session.router.let_go(now)
    return OK


def _getredir(session: Session, args: list[bytes], reply: bytes, now: float) -> bytes:
    return resp.integer(_redirection(session))


def _trackinginfo(session: Session, args: list[bytes], reply: bytes, now: float) -> bytes:
    return tracking.info(reply, _redirection(session))


def _info_proxy(session: Session, args: list[bytes], reply: bytes, now: float) -> bytes:
    return verbatim(report(session.router, now), session.identity.protocol)


QUESTIONS: dict[str, Callable[[Session, list[bytes]], list[bytes] | None]] = {
    "CLIENT|SETNAME": _ask_name,
    "CLIENT|SETINFO": _ask_about,
    "CLIENT|LIST": _ask_list,
    "CLIENT|KILL": _ask_kill,
    "CLIENT|REPLY": _ask_reply,
    "CLIENT|NO-EVICT": _ask_no_evict,
    "CLIENT|UNBLOCK": _ask_unblock,
    "CLIENT|PAUSE": _ask_pause,
}

EFFECTS: dict[str, Callable[[Session, list[bytes], bytes, float], bytes]] = {
    "CLIENT|ID": _id,
    "CLIENT|GETNAME": _getname,
    "CLIENT|SETNAME": _setname,
    "CLIENT|SETINFO": _as_it_is,
    "CLIENT|INFO": _info,
    "CLIENT|LIST": _list,
    "CLIENT|KILL": _kill,
    "CLIENT|UNBLOCK": _unblock,
    "CLIENT|NO-EVICT": _no_evict,
    "CLIENT|REPLY": _reply,
    "CLIENT|PAUSE": _pause,
    "CLIENT|UNPAUSE": _unpause,
    "CLIENT|GETREDIR": _getredir,
    "CLIENT|TRACKINGINFO": _trackinginfo,
    "INFO": _info_proxy,
}

EFFECTS_WITH_OTHERS: dict[str, Callable[[Session, list[bytes], bytes, float, Answers], bytes]] = {
    "CLIENT|LIST": _list,
    "CLIENT|KILL": _kill,
    "CLIENT|UNBLOCK": _unblock,
    "CLIENT|PAUSE": _pause,
    "CLIENT|UNPAUSE": _unpause,
}
"""The same with what other workers have said (`gathering`)."""

KNOWN_HERE: frozenset[str] = frozenset(["CLIENT|ID", "CLIENT|GETNAME", "CLIENT|INFO", "CLIENT|LIST", "INFO"])
"""What is answered without the consent of a server when none can be reached."""
AT_EXEC: frozenset[str] = frozenset(
    EFFECTS.keys() - {"CLIENT|KILL", "CLIENT|UNBLOCK", "CLIENT|REPLY", "CLIENT|PAUSE", "CLIENT|UNPAUSE"}
)
"""What may stand behind MULTI: the others act on clients whose commands may be on their way."""
