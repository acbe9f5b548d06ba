"""Sessions of this process, as those see each other that deal with one on behalf of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from rfproxy.routing.router import Router
    from rfproxy.session.session import Session


def sessions_of(router: Router) -> dict[int, Session]:
    """All sessions by their number. Routing keeps them, and needs to know them as waiters only."""
    return cast("dict[int, Session]", router.sessions)
