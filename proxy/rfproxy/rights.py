"""Which accounts may ask a server the questions of the greeting, as far as earlier greetings have shown.

Without this memory each new connection would be refused the same questions again, which costs a round trip and, where
the account may speak but not ask, an entry in ACL LOG.
"""

from __future__ import annotations

from rfprotocol.topology import Node
from rfproxy.greeting import CHECKS, Account, Asker, LaneKey, Welcome

FORGET = 600.0
"""Seconds after which an account that might not ask is tried again: an operator may have mended it."""
MOST_ABLE = 16
"""Accounts remembered for each server as able to ask."""
_SPEAK = b"AUTH"
"""Stands among what an account may not do when the server does not let it speak at all: NOAUTH, WRONGPASS."""


class Rights:
    """Times are seconds of the caller's monotonic clock."""

    def __init__(self, account: Account | None) -> None:
        """`account` is the proxy's; None: it speaks as the servers' default user."""
        self._account = account
        self._denied: dict[tuple[Node, Account | None], frozenset[bytes]] = {}
        self._since: dict[tuple[Node, Account | None], float] = {}
        self._able: dict[Node, dict[Account, None]] = {}

    def plan(self, key: LaneKey) -> tuple[Asker, frozenset[bytes]]:
        """Under which account to ask on a new connection, and what that one need not try."""
        user = key.identity.account
        denied = self._denied.get((key.node, self._account), frozenset())
        if not denied & (CHECKS | {_SPEAK}):
            return Asker.PROXY, denied
        if user is None or user == self._account:
            return (Asker.PROXY, frozenset()) if _SPEAK in denied else (Asker.NOBODY, frozenset())
        denied = self._denied.get((key.node, user), frozenset())
        if denied & CHECKS:
            return Asker.NOBODY, frozenset()
        able = self._able.get(key.node, {})
        return (Asker.USER, denied) if user in able or not able else (Asker.NOBODY, frozenset())

    def able(self, node: Node) -> Account | None:
        """A client's account that may ask this server, the one that was seen last."""
        return next(reversed(self._able.get(node, {})), None)

    def learn(self, key: LaneKey, asker: Asker, welcome: Welcome, now: float) -> None:
        """A greeting has ended."""
        if asker is Asker.PROXY and welcome.account_error:
            self._deny((key.node, self._account), frozenset([_SPEAK]), now)
        elif welcome.refusal is not None or asker is Asker.NOBODY:
            return
        elif asker is Asker.PROXY:
            speechless = frozenset([_SPEAK]) if welcome.stranger else frozenset()
            self._deny((key.node, self._account), welcome.unasked | speechless, now)
        elif (user := key.identity.account) is not None:
            self._deny((key.node, user), welcome.unasked, now)
            able = self._able.setdefault(key.node, {})
            able.pop(user, None)
            if not welcome.unasked & CHECKS:
                able[user] = None
            if len(able) > MOST_ABLE:
                del able[next(iter(able))]

    def unable(self, node: Node, account: Account) -> None:
        """The server does not accept this account any more."""
        self._able.get(node, {}).pop(account, None)

    def forget(self, now: float) -> None:
        """Forget what was refused long ago."""
        for place in [place for place, since in self._since.items() if now - since >= FORGET]:
            del self._since[place], self._denied[place]

    def _deny(self, place: tuple[Node, Account | None], names: frozenset[bytes], now: float) -> None:
        if names:
            self._denied[place] = self._denied.get(place, frozenset()) | names
            self._since.setdefault(place, now)
