"""The words for the condition of a server: what is wrong with it, and what an operator has to do. Pure."""

from __future__ import annotations

from typing import Final

_TROUBLES: Final = {
    "noauth": "refuses the managers: check their username and password",
    "wrongpass": "refuses the managers' password (WRONGPASS): check their username and password",
    "noperm": "refuses the managers' commands (NOPERM): 'rfmanager doctor' names the rights they need",
    "denied": "is in protected mode (DENIED): set a password there, or 'bind' and 'protected-mode no'",
    "sentinel": "is a Sentinel: name the Redis servers that it watches",
    "misconf": "cannot save to disk and refuses writes (MISCONF): check its disk and its log",
    "loading": "is loading its data and answers nothing until that is done",
    "busy": "is busy with a script: SCRIPT KILL ends one that has not written",
    "refused": "refuses connections: is it running?",
    "closed": "accepts connections and closes them: is it a TLS port, or another program?",
    "timeout": "accepts connections but does not answer (frozen or busy)",
    "unreachable": "does not answer: host or network unreachable",
    "unresolved": "its name cannot be resolved: check its spelling and the name service",
    "foreign": "is no Redis server: what listens there answers in another protocol",
    "error": "cannot be reached: the managers' logs say why",
}
"""By condition: an error code of Redis in small letters, or a value of `rfprotocol.errors.Failure`."""


def trouble(condition: str) -> str:
    """Return the words for a condition, with the server as their subject; an unknown condition is returned as it is."""
    return _TROUBLES.get(condition, condition)


def meaning(condition: str) -> str:
    """Return the words for a condition as a sentence; empty for "ok" and for an unknown condition."""
    words = _TROUBLES.get(condition, "")
    return words if not words or words.startswith("its ") else f"it {words}"
