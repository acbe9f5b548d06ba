"""The seats in the lock of the gem's node managers: whose they are, and who holds it. Pure.

Each manager of this system takes a seat there, too: the gem's managers act only while one of them has the lowest.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

_GEMS: Final = re.compile(r"ex\d{10}")
"""How the `zk` gem names a seat; those of these managers have a token before the number."""
_NUMBER: Final = re.compile(r"\d{10}$")


def of_the_gem(seats: Iterable[str]) -> list[str]:
    """The names of the seats that node managers of the gem have taken."""
    return [seat for seat in seats if _GEMS.fullmatch(seat)]


def lowest(seats: Iterable[str]) -> str:
    """The seat that was taken first; empty when there is none."""
    return min((seat for seat in seats if _NUMBER.search(seat)), key=lambda seat: seat[-10:], default="")


def is_led_by_the_gem(seats: Collection[str]) -> bool:
    """Whether a node manager of the gem may act, and none of these managers."""
    return lowest(seats) in of_the_gem(seats)


def trouble(seats: Collection[str]) -> str:
    """What is wrong with the gem's managers being there, in a sentence; empty when there are none."""
    if not of_the_gem(seats):
        return ""
    if is_led_by_the_gem(seats):
        return "node managers of redis_failover lead: nothing is done until every redis_node_manager is stopped"
    return "a node manager of redis_failover waits in line: it takes over when these managers end, stop it"
