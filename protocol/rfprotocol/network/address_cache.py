"""The addresses behind host names: what is known, what is to be looked up, and when. Pure.

    WAITING ──look-up succeeds──> KNOWN ──every REFRESH, and after a failed connect: looked up again
       └──it fails, or takes longer than PATIENCE──> UNRESOLVED ──a later one succeeds──> KNOWN

A failover must not wait for the name service: it is often lost together with a host. So the addresses of all servers
are looked up ahead, and who connects is given the last good ones at once, however old they are, while a look-up is
slow or fails (RFC 8767 calls this serving stale data). What ends that:

* a look-up that brings others;
* GONE seconds during which the name service says that there is no such name: the address may be somebody else's soon;
* STALE seconds without any look-up that succeeded.

Of several addresses of a name the one that connected last comes first, the others keep the order of the look-up.
Names that nobody follows are forgotten KEPT seconds after they were last asked for. An address needs no look-up.

Times are seconds of the caller's clock.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from rfprotocol.errors import Failure, NodeUnreachable

REFRESH = 1.5
"""Seconds between the beginnings of two look-ups. A name that moves is followed within 2 s, even when the server at
its former address goes on."""
HURRY = 0.5
"""The same, when connects fail, or while there is no address to use."""
PATIENCE = 5.0
"""Seconds that the first look-up of a name is waited for. A resolver asks its second server after 5 s by default."""
MEMORY_PATIENCE = 0.5
"""The same, where addresses are remembered from an earlier run."""
GONE = 60.0
STALE = 86400.0
"""RFC 8767 recommends one to three days."""
KEPT = 60.0


@lru_cache(maxsize=4096)  # each connection asks
def is_address(host: str) -> bool:
    """Whether it is an IP address, with or without a scope."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def kept_addresses(said: object) -> dict[str, list[str]]:
    """What is of use in addresses by host name that somebody has kept as JSON."""
    return {
        host: addresses
        for host, addresses in (said.items() if isinstance(said, dict) else ())
        if isinstance(addresses, list) and addresses and all(isinstance(a, str) and is_address(a) for a in addresses)
    }


@dataclass(slots=True)
class _Name:
    """What is known of one name."""

    asked: float  # when somebody last wanted to know it
    first_asked: float
    addresses: tuple[str, ...] = ()  # the last good ones
    preferred: str = ""  # of these, the one that connected last
    confirmed: float = -math.inf  # when a look-up last brought them
    remembered: bool = False  # they are of an earlier run, and no look-up has ended since
    under_way: bool = False  # a look-up
    began: float = -math.inf  # when the last one did
    due: float = -math.inf  # when the next one is to
    hurried: bool = False  # it failed to connect while one was under way
    trouble: str = ""  # why the last one failed
    unknown_since: float | None = None  # the name service has said since then that there is no such name


@dataclass(frozen=True, slots=True)
class News:
    """What a look-up has changed."""

    failing: bool = False  # it is the first one that failed
    recovered: bool = False  # it is the first one that succeeded after one that had failed
    changed: bool = False  # the name has other addresses than before, or the first ones


@dataclass(slots=True)
class AddressCache:
    """All names of one process."""

    _names: dict[str, _Name] = field(default_factory=dict)
    _followed: dict[object, frozenset[str]] = field(default_factory=dict)

    def follow(self, owner: object, hosts: Iterable[str], now: float) -> None:
        """Look these up ahead, for as long as `owner` does not say otherwise. Addresses among them are passed over."""
        names = frozenset(host for host in hosts if not is_address(host))
        for host in names:
            self._ask(host, now)
        if names:
            self._followed[owner] = names
        else:
            self._followed.pop(owner, None)

    def find(self, host: str, now: float) -> tuple[str, ...]:
        """The addresses to connect to; none while the first look-up is to be waited for, until `patience`.

        Raises NodeUnreachable (UNRESOLVED).
        """
        name = self._ask(host, now)
        if self._usable(name, now) and not self._awaited(name, now):
            first = [address for address in name.addresses if address == name.preferred]
            return (*first, *(address for address in name.addresses if address != name.preferred))
        if self._awaited(name, now):
            return ()
        why = name.trouble or f"the name service has not answered within {PATIENCE:g} s"
        raise NodeUnreachable(f"its name cannot be looked up: {why}", Failure.UNRESOLVED)

    def patience(self, host: str, now: float) -> float:
        """Seconds that the first look-up of a name is still to be waited for."""
        name = self._ask(host, now)
        return name.first_asked + (MEMORY_PATIENCE if name.remembered else PATIENCE) - now

    def knows(self, host: str, now: float) -> bool:
        """Whether there are addresses of it to connect to."""
        name = self._names.get(host)
        return is_address(host) or (name is not None and self._usable(name, now))

    def _awaited(self, name: _Name, now: float) -> bool:
        """Whether no look-up of it has ended yet, and there is still time."""
        first = not name.trouble and name.confirmed == -math.inf
        patience = MEMORY_PATIENCE if name.remembered else PATIENCE
        return (first or name.remembered) and now < name.first_asked + patience

    def _usable(self, name: _Name, now: float) -> bool:
        gone = name.unknown_since is not None and now - name.unknown_since > GONE
        return bool(name.addresses) and not gone and now - name.confirmed <= STALE

    def _ask(self, host: str, now: float) -> _Name:
        name = self._names.get(host)
        if name is None:
            name = self._names[host] = _Name(asked=now, first_asked=now)
        name.asked = now
        return name

    # --- when to look up

    def begin(self, now: float) -> list[str]:
        """The names whose look-up begins now. How each of them ends has to be said, once."""
        followed = frozenset[str]().union(*self._followed.values())
        forgotten = [
            host
            for host, name in self._names.items()
            if host not in followed and now - name.asked > KEPT and not name.under_way
        ]
        for host in forgotten:
            del self._names[host]
        hosts = [host for host, name in self._names.items() if not name.under_way and name.due <= now]
        for host in hosts:
            name = self._names[host]
            name.under_way, name.began, name.hurried = True, now, False
        return hosts

    def next_due(self) -> float:
        """When `begin` has something to say; infinite when there is nothing to do."""
        return min((name.due for name in self._names.values() if not name.under_way), default=math.inf)

    def hurry(self, host: str) -> None:
        """A server could not be connected to, or not at once: its name may have moved."""
        if (name := self._names.get(host)) is not None:
            name.hurried = True
            name.due = min(name.due, name.began + HURRY)

    # --- what came of it

    def found(self, host: str, addresses: Iterable[str], now: float) -> News:
        """A look-up brought these."""
        name, found = self._names[host], tuple(dict.fromkeys(addresses))
        news = News(recovered=bool(name.trouble), changed=set(found) != set(name.addresses))
        name.addresses, name.confirmed = found, now
        name.trouble, name.unknown_since, name.remembered = "", None, False
        self._ended(name)
        return news

    def failed(self, host: str, why: str, now: float, *, unknown: bool) -> News:
        """A look-up failed. `unknown`: the name service says that there is no such name."""
        name = self._names[host]
        news = News(failing=not name.trouble)
        name.trouble, name.remembered = why, False
        if not unknown:
            name.unknown_since = None
        elif name.unknown_since is None:
            name.unknown_since = now
        self._ended(name, hurry=not self._usable(name, now))
        return news

    def _ended(self, name: _Name, *, hurry: bool = False) -> None:
        name.under_way = False
        name.due = name.began + (HURRY if hurry or name.hurried else REFRESH)

    def connected(self, host: str, address: str) -> None:
        """This address of a name accepts connections."""
        if (name := self._names.get(host)) is not None:
            name.preferred = address

    # --- what an earlier run knew

    def remember(self, known: Mapping[str, Iterable[str]], now: float) -> None:
        """Addresses from an earlier run: good ones until a look-up ends, should it be slow or fail."""
        for host, addresses in known.items():
            name = self._ask(host, now)
            if not name.addresses:
                name.addresses, name.confirmed, name.remembered = tuple(addresses), now, True

    def known(self) -> dict[str, tuple[str, ...]]:
        """The last good addresses of all names."""
        return {host: name.addresses for host, name in self._names.items() if name.addresses}
