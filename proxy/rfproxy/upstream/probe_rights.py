"""Which accounts may ask a server the questions of the greeting, as far as earlier greetings have shown.

Without this memory each new connection would be refused the same questions again, which costs a round trip and, where
the account may speak but not ask, an entry in ACL LOG.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rfprotocol.topology.topology import Node
from rfproxy.core.identity import Account, LaneKey
from rfproxy.upstream.handshake import CHECKS, Asker, Welcome

FORGET = 600.0
"""Seconds after which an account that might not ask is tried again: an operator may have mended it."""
MOST_ABLE = 16
"""Accounts remembered for each server as able to ask."""
_SPEAK = b"AUTH"
"""Stands among what an account may not do when the server does not let it speak at all: NOAUTH, WRONGPASS."""
_NOTHING: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """How to greet a server."""

    asker: Asker
    account: Account | None  # the proxy's, or the other one's
    skip: frozenset[bytes] = field(default=_NOTHING)  # what the asker need not try


class Rights:
    """Times are seconds of the caller's monotonic clock."""

    def __init__(self, account: Account | None) -> None:
        """`account` is the proxy's; None: it speaks as the servers' default user."""
        self._account = account
        self._denied: dict[tuple[Node, Account | None], frozenset[bytes]] = {}
        self._since: dict[tuple[Node, Account | None], float] = {}
        self._able: dict[Node, dict[Account, None]] = {}

    def plan(self, key: LaneKey) -> Plan:
        """Under which account to ask on a new connection."""
        own, user = self._account, key.identity.account
        denied = self._of(key.node, own)
        if not denied & (CHECKS | {_SPEAK}):
            return Plan(Asker.PROXY, own, denied)
        if (user is None or user == own) and _SPEAK in denied:
            return Plan(Asker.PROXY, own)  # it has to be said, and what is refused to a stranger leaves no trace
        able = self._able.get(key.node, {})
        if user is not None and user in able:
            return Plan(Asker.USER, own, self._of(key.node, user) - {b"SELECT"})
        if user is not None and able:
            other = next(reversed(able))
            return Plan(Asker.OTHER, other, self._of(key.node, other))
        if user is None or user == own or self._of(key.node, user) & CHECKS:
            return Plan(Asker.NOBODY, own)
        return Plan(Asker.USER, own, self._of(key.node, user))

    def learn(self, key: LaneKey, plan: Plan, welcome: Welcome, now: float) -> None:
        """A greeting has ended."""
        if welcome.account_error and plan.asker is Asker.PROXY:
            self._deny(key.node, plan.account, frozenset([_SPEAK]), now)
        elif welcome.account_error and plan.asker is Asker.OTHER and plan.account is not None:
            self._able.get(key.node, {}).pop(plan.account, None)
        elif welcome.refusal is None and plan.asker is Asker.PROXY:
            speechless = frozenset([_SPEAK]) if welcome.stranger else _NOTHING
            self._deny(key.node, plan.account, welcome.unasked | speechless, now)
        elif welcome.refusal is None and plan.asker is not Asker.NOBODY:
            asked = plan.account if plan.asker is Asker.OTHER else key.identity.account
            self._deny(key.node, asked, welcome.unasked, now)
            if asked is not None:
                self._remember(key.node, asked, able=not welcome.unasked & CHECKS)

    def renew(self) -> None:
        """The proxy says another password: what its account was refused proves nothing any more."""
        for place in [place for place in self._denied if place[1] == self._account]:
            del self._since[place], self._denied[place]

    def forget(self, now: float) -> None:
        """Forget what was refused long ago."""
        for place in [place for place, since in self._since.items() if now - since >= FORGET]:
            del self._since[place], self._denied[place]

    def _remember(self, node: Node, account: Account, *, able: bool) -> None:
        accounts = self._able.setdefault(node, {})
        accounts.pop(account, None)
        if able:
            accounts[account] = None
        if len(accounts) > MOST_ABLE:
            del accounts[next(iter(accounts))]

    def _of(self, node: Node, account: Account | None) -> frozenset[bytes]:
        return self._denied.get((node, account), _NOTHING)

    def _deny(self, node: Node, account: Account | None, names: frozenset[bytes], now: float) -> None:
        if names:
            self._denied[node, account] = self._of(node, account) | names
            self._since.setdefault((node, account), now)
