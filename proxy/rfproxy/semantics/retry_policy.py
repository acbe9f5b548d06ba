"""May a command be sent again? The safety argument of the proxy lives here.

A command that was never sent, and one that the server answered with an error that it gives *before*
executing anything, can be sent again without thought. The rest was sent and got no reply: it may have been
executed, and its effect may have reached the new master or not. Sending it again is harmless when

* it has no effect (`reads_only` in the command table), or
* executing it twice leaves what executing it once leaves, and its reply tells the caller nothing that the
  second execution would answer differently in a way callers act upon.

By default (`idempotent`) only commands that meet this are repeated:

    SET, SETEX, PSETEX, MSET      overwrite; without NX, XX, GET, whose reply depends on what was there before
    HSET, HMSET                   overwrite fields; HSET's count of *new* fields may read 0 instead of n
    LSET, SETRANGE                overwrite one place; same reply each time
    ARSET, ARMSET                 the same for the places of an array
    EXPIRE, PEXPIRE, *AT          without NX, XX, GT, LT; the same moment, or the same span counted from now
    HEXPIRE, HPEXPIRE, *AT        the same for fields
    HSETEX, MSETEX                without FNX, FXX, NX, XX
    ARSEEK, VSETATTR              overwrite one thing; same reply each time
    RESTORE with REPLACE          overwrites
    SCRIPT LOAD                   the same digest

Not among them, although the final state is the same, because callers read the reply as "was it me?": DEL and
UNLINK (locks), SADD, SREM, ZADD, ZREM, HDEL, SETNX, PERSIST, SETBIT. Not among them because a second time is
another effect: INCR, APPEND, the list commands, streams, PUBLISH, scripts, FLUSHALL (it would wipe what others
wrote meanwhile). All of these are answered -UNCERTAIN.

A repeated SET can undo what another client wrote between the two executions. The first client still waits for its
reply then, so its write may take effect at any moment before it; but who has read the value after the first execution
and written another one may see it return. That is the freedom used here. A caller who cannot grant it runs with
`retry_writes: never`.
"""

from __future__ import annotations

from collections.abc import Sequence

from rfprotocol.resp.command_table import Command, Route
from rfproxy.core.policy import RetryWrites

REFUSALS = (
    b"-READONLY You can't write against a read only replica.",
    b"-LOADING Redis is loading the dataset in memory",
    b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    b"-UNBLOCKED force unblock from blocking operation, instance state changed",
)
"""What a server says instead of executing (server.c: createSharedObjects; blocked.c: disconnectAllBlockedClients).

The whole texts, since scripts may make up errors with the same first word, after they have had effects."""

NO_REPLICAS = b"NOREPLICAS Not enough good replicas to write."
"""What a master says instead of executing a write while it has fewer replicas than `min-replicas-to-write`. A script
hears it as long as it has written nothing (script.c: scriptVerifyWriteCommandAllow)."""

_NOT_EXECUTED = (*REFUSALS, *(b"-EXECABORT Transaction discarded because of: " + text[1:] for text in REFUSALS))
"""The same for a transaction as a whole, too (multi.c: execCommandAbort)."""

_ALWAYS_SAME = frozenset(
    [
        *("SETEX", "PSETEX", "MSET", "HSET", "HMSET", "LSET", "SETRANGE", "SCRIPT|LOAD"),
        *("ARSET", "ARMSET", "ARSEEK", "VSETATTR"),
    ]
)
_CONDITIONS = frozenset([b"NX", b"XX", b"GT", b"LT"])
_SAME_UNLESS = {
    "SET": frozenset([b"NX", b"XX", b"GET", b"IFEQ", b"IFNE", b"IFDEQ", b"IFDNE"]),
    **dict.fromkeys(["EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT"], _CONDITIONS),
}
_FIELD_EXPIRY = frozenset(["HEXPIRE", "HPEXPIRE", "HEXPIREAT", "HPEXPIREAT"])


def refused(reply: bytes) -> bool:
    """Whether this reply says that the command was not executed and belongs on another server, or later."""
    return reply.startswith(_NOT_EXECUTED)


def lacks_replicas(reply: bytes) -> bool:
    """Whether this reply says that a write, or a transaction, was not executed for want of replicas."""
    return reply.startswith((b"-" + NO_REPLICAS, b"-EXECABORT Transaction discarded because of: " + NO_REPLICAS))


def may_have_changed(command: Command, reply: bytes) -> bool:
    """Whether a command that was answered like this may have changed something.

    An error says that it has not, but for a script, or what is not known: that may have failed half-way.
    """
    return command.may_have_effect and (command.route is Route.OWN or not reply.startswith(b"-"))


def idempotent(command: Command, args: Sequence[bytes]) -> bool:
    """Whether executing the write twice is as good as once, by the rule at the head of this module."""
    name = command.name
    if name in _ALWAYS_SAME:
        return True
    unless = _SAME_UNLESS.get(name)
    if unless is not None:
        # The value itself (args[2]) may read like an option and is none.
        return not any(arg.upper() in unless for arg in args[3:])
    if name in _FIELD_EXPIRY:
        return len(args) > 3 and args[3].upper() not in _CONDITIONS  # names of fields follow
    if name == "HSETEX":
        options = [arg.upper() for arg in args]
        end = options.index(b"FIELDS", 2) if b"FIELDS" in options[2:] else len(options)
        return not {b"FNX", b"FXX"}.intersection(options[2:end])
    if name == "MSETEX":
        return not {arg.upper() for arg in args[_behind_pairs(args) :]} & _CONDITIONS
    return name == "RESTORE" and any(arg.upper() == b"REPLACE" for arg in args[4:])


def _behind_pairs(args: Sequence[bytes]) -> int:
    """Where the options of MSETEX begin, behind `numkeys key value ...`; 0 when that cannot be read."""
    return 2 + 2 * int(args[1]) if args[1].isdigit() else 0


def may_resend(command: Command, args: Sequence[bytes], policy: RetryWrites) -> bool:
    """Whether a command that was sent and never answered may be sent again."""
    if command.reads_only or policy is RetryWrites.ALWAYS:
        return True
    return policy is RetryWrites.IDEMPOTENT and idempotent(command, args)
