"""How lanes are greeted: who asks the proxy's questions on each, and what operators are told when nobody may.

The proxy's own account asks (`greeting`). Where it may not, another account does that is known to be able, since AUTH
takes a connection from one user to the next: another client's, or the client's own. So nothing is refused that would
stand in ACL LOG. Where nobody may ask, the lane is used unchecked, and that is said once.

The proxy's password may be changed while it runs. Sessions and lanes know its account by what the options said; a
server is told what it accepts (`keyring`), and after a refusal the password file is read again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rfprotocol.settings.keyring import Keyring
from rfprotocol.topology.topology import Node
from rfproxy.core.identity import Account
from rfproxy.core.ports import Log
from rfproxy.upstream.connection import Lane
from rfproxy.upstream.handshake import CHECKS, NEEDED, Asker, Greeting, Refusal, Welcome
from rfproxy.upstream.probe_rights import Plan, Rights

MOST_GREETINGS = 8
"""Times that one connection is greeted: as the proxy, as others whose passwords may be old, as its user, as nobody."""
_NEEDED = "ACL SETUSER {} +role +info +select +client|id"


class Reception:
    """Of one router. Times are seconds of its monotonic clock."""

    def __init__(self, account: Account | None, log: Log) -> None:
        """`account` is the proxy's."""
        self._account = account
        self._log = log
        self._rights = Rights(account)
        self._keys = Keyring(account)
        self._problems: dict[Node, str] = {}
        self._unchecked: dict[Node, None] = {}

    def rereads(self, read: Callable[[], Account | None] | None, former: Account | None = None) -> None:
        """`read` tells the proxy's account as it is now, or raises ConfigError; `former`: as it was before a reload."""
        self._keys = Keyring(self._account, read, former)

    @property
    def problems(self) -> str:
        """What is wrong with the proxy's account, for each server."""
        return ", ".join(f"{node} {problem}" for node, problem in self._problems.items())

    @property
    def unchecked(self) -> str:
        """The servers that nobody may ask whether they are what the topology says."""
        return ",".join(map(str, self._unchecked))

    def begin(self, lane: Lane) -> None:
        """A connection stands: greet the server."""
        plan, own, said = self._rights.plan(lane.key), self._account, self._keys.of(lane.key.node)
        says = (own, said) if own is not None and said is not None and said != own else None
        lane.greet(Greeting(lane.key, lane.run_id, account=plan.account, asker=plan.asker, skip=plan.skip, says=says))

    def again(self, lane: Lane, welcome: Welcome, now: float) -> bool:
        """Not everything could be asked; whether the lane is greeted once more, in another way."""
        greeting = lane.greeting
        if greeting is None or greeting.asker is Asker.NOBODY or lane.greetings >= MOST_GREETINGS:
            return False
        if greeting.asker is Asker.PROXY and welcome.account_error and self._has_another(lane.key.node, greeting):
            self.begin(lane)
            return True
        if not welcome.unasked & NEEDED:
            return False
        self._learn(lane, welcome, now)
        if self._rights.plan(lane.key) == _plan_of(greeting):
            return False
        self.begin(lane)
        return True

    def refused(self, lane: Lane, welcome: Welcome) -> Welcome:
        """A server does not let somebody in. If it is the proxy, and there is another password to be tried, it is as if
        the server could not be reached at the moment: nobody hears of it. A client that is refused as well hears its
        own refusal, and the next connection is greeted with the other password."""
        greeting, node = lane.greeting, lane.key.node
        if greeting is None or welcome.refusal is not Refusal.DENIED:
            return welcome
        if lane.key.identity.account != self._account:
            asked = greeting.asker is Asker.PROXY and welcome.account_error
            return replace(welcome, account_error="") if asked and self._has_another(node, greeting) else welcome
        is_own = welcome.account_error or welcome.text.startswith("WRONGPASS")
        if not is_own or not self._has_another(node, greeting):
            return welcome
        return Welcome(Refusal.UNFIT, "the password of rfproxy's account was changed there, another one is tried")

    def _has_another(self, node: Node, greeting: Greeting) -> bool:
        """The server has refused what the proxy said there. Whether something else is to be tried."""
        said = greeting.says[1] if greeting.says else self._account
        another = said is not None and self._keys.refused(node, said)
        if another:
            self._rights.renew()
        elif self._keys.problem:
            self._log.warning("password_file_unreadable", error=self._keys.problem)
        return another

    def ready(self, lane: Lane, now: float) -> None:
        """A lane was greeted, as well as it could be."""
        welcome = lane.welcome
        if welcome is None:
            return
        self._learn(lane, welcome, now)
        node, greeting = lane.key.node, lane.greeting
        own = self._account if greeting is None or greeting.says is None else greeting.says[1]
        if own is not None and greeting is not None and greeting.asker is Asker.PROXY and not welcome.account_error:
            self._keys.accepted(node, own)
        if not welcome.unasked & CHECKS:
            self._unchecked.pop(node, None)
        elif not welcome.stranger and node not in self._unchecked:
            self._unchecked[node] = None
            self._log.warning(
                "cannot_check",
                node=str(node),
                error="no account may ask this server ROLE and INFO, so a restart without its data goes unnoticed; "
                "give rfproxy an account (username, password) and say at the server: " + _NEEDED.format("<username>"),
            )

    def over(self, lane: Lane, now: float) -> None:
        """A lane is closed."""
        welcome = lane.welcome
        if welcome is not None and welcome.refusal is Refusal.DENIED:
            self._learn(lane, welcome, now)

    def reap(self, now: float) -> None:
        """Some time has passed: what was refused long ago may be tried again."""
        self._rights.forget(now)

    def _learn(self, lane: Lane, welcome: Welcome, now: float) -> None:
        greeting = lane.greeting
        if greeting is None:
            return
        self._rights.learn(lane.key, _plan_of(greeting), welcome, now)
        if greeting.asker is Asker.PROXY:
            self._note(lane.key.node, welcome, tried_all=not greeting.skip)

    def _note(self, node: Node, welcome: Welcome, *, tried_all: bool) -> None:
        """Tell operators of the proxy's own account, once for each server and problem."""
        name = (self._account.username.decode(errors="replace") if self._account else "") or "default"
        if welcome.account_error:
            problem = "refused"
        elif welcome.unasked and not welcome.stranger:
            problem = "lacks " + "+".join(sorted(word.decode().lower() for word in welcome.unasked))
        elif tried_all and welcome.refusal is None:
            if self._problems.pop(node, None):
                self._log.info("account_accepted", node=str(node), account=name)
            return
        else:
            return
        if self._problems.get(node) == problem:
            return
        self._problems[node] = problem
        if welcome.account_error:
            error = f"the server refuses rfproxy's own username and password: {welcome.account_error}"
            self._log.warning("account_refused", node=str(node), account=name, error=error)
        else:
            error = "rfproxy's own account may not ask what it has to; say at the server: " + _NEEDED.format(name)
            self._log.warning("account_lacks_rights", node=str(node), account=name, problem=problem, error=error)


def _plan_of(greeting: Greeting) -> Plan:
    return Plan(greeting.asker, greeting.account, greeting.skip)
