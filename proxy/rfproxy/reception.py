"""How lanes are greeted: who asks the proxy's questions on each, and what operators are told when nobody may.

The proxy's own account asks (`greeting`). Where it may not, the client's user does, unless another client's account is
known to be able: then a connection under that one vouches (`guard`), so that nothing is refused that would stand in
ACL LOG. Where nobody may ask, the lane is used unchecked, and that is said once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from rfprotocol.topology import Node
from rfproxy.greeting import CHECKS, NEEDED, Account, Asker, Duty, Greeting, Identity, Refusal, Welcome
from rfproxy.guard import Guard
from rfproxy.lane import Lane, LaneOwner
from rfproxy.rights import Rights
from rfproxy.shell import Log

MOST_GREETINGS = 4
"""Times that one connection is greeted: as the proxy, as its user, with another way to the database, as nobody."""
_NEEDED = "ACL SETUSER {} +role +info +select +client|id"


class Reception:
    """Of one router. Times are seconds of its monotonic clock."""

    def __init__(self, account: Account | None, owner: LaneOwner, connect: Callable[[Lane], None], log: Log) -> None:
        """`account` is the proxy's; `connect` opens the connection of a lane."""
        self._account = account
        self._owner = owner
        self._connect = connect
        self._log = log
        self._rights = Rights(account)
        self._guards: dict[tuple[Node, Duty], Guard] = {}
        self._problems: dict[Node, str] = {}
        self._unchecked: dict[Node, None] = {}

    @property
    def guards(self) -> Iterable[Lane]:
        """The connections that vouch for others."""
        return self._guards.values()

    @property
    def problems(self) -> str:
        """What is wrong with the proxy's account, for each server."""
        return ", ".join(f"{node} {problem}" for node, problem in self._problems.items())

    @property
    def unchecked(self) -> str:
        """The servers that nobody may ask whether they are what the topology says."""
        return ",".join(map(str, self._unchecked))

    def begin(self, lane: Lane) -> None:
        """A connection stands: greet the server, or see that another connection vouches for it."""
        asker, skip = self._rights.plan(lane.key)
        guard = self._guard(lane) if asker is Asker.NOBODY else None
        if guard is not None:
            guard.vouch(lane)
        else:
            lane.greet(Greeting(lane.key, lane.run_id, account=self._account, asker=asker, skip=skip))

    def vouched(self, lane: Lane) -> None:
        """A guard has asked in the place of this lane."""
        lane.greet(Greeting(lane.key, lane.run_id, account=self._account, asker=Asker.NOBODY, vouched=True))

    def again(self, lane: Lane, welcome: Welcome, now: float) -> bool:
        """Not everything could be asked; whether the lane is greeted once more, in another way."""
        greeting = lane.greeting
        done = not welcome.unasked & NEEDED or lane.greetings >= MOST_GREETINGS
        if greeting is None or greeting.asker is Asker.NOBODY or done:
            return False
        self._learn(lane, welcome, now)
        if isinstance(lane, Guard):
            if welcome.unasked & CHECKS:
                lane.lose(now, replace(welcome, refusal=Refusal.DENIED, text="it may not ask"))
            return bool(welcome.unasked & CHECKS)
        if self._rights.plan(lane.key) == (greeting.asker, greeting.skip):
            return False
        self.begin(lane)
        return True

    def ready(self, lane: Lane, now: float) -> None:
        """A lane was greeted, as well as it could be."""
        welcome = lane.welcome
        if welcome is None:
            return
        self._learn(lane, welcome, now)
        node = lane.key.node
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
        if self._guards.get((lane.key.node, lane.key.duty)) is lane:
            del self._guards[lane.key.node, lane.key.duty]
            account = lane.key.identity.account
            if welcome is not None and welcome.refusal is Refusal.DENIED and account is not None:
                self._rights.unable(lane.key.node, account)

    def reap(self, now: float) -> None:
        """Some time has passed: what was refused long ago may be tried again."""
        self._rights.forget(now)

    def _guard(self, lane: Lane) -> Guard | None:
        place = lane.key.node, lane.key.duty
        guard = self._guards.get(place)
        account = self._rights.able(lane.key.node)
        if guard is None and account is not None and not isinstance(lane, Guard):
            key = replace(lane.key, identity=Identity(account=account))
            guard = self._guards[place] = Guard(key, self._owner, self, run_id=lane.run_id)
            self._connect(guard)
        return guard

    def _learn(self, lane: Lane, welcome: Welcome, now: float) -> None:
        greeting = lane.greeting
        if greeting is None:
            return
        self._rights.learn(lane.key, greeting.asker, welcome, now)
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
