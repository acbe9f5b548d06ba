"""One margin for both leases, larger than what ZooKeeper can lose of a proof."""

from __future__ import annotations

from rfmanager.daemon.leadership import Tenure
from rfprotocol.lease_margin import MARGIN, good_until
from rfprotocol.store.interface import Fence
from rfproxy.routing.lease import Lease

LOST = 1 / 4
"""Of the session timeout: a sign of life is passed on half a tick late, and a session has two ticks at least."""


def test_margin__what_zookeeper_may_lose__is_covered() -> None:
    assert MARGIN > LOST
    assert good_until(100.0, 3.0) == 102.0


def test_margin__proxy_and_manager__have_the_same() -> None:
    lease, tenure = Lease(), Tenure()
    tenure.elected(Fence("/lock/1"), 7)
    lease.renew(100.0, 3.0)
    tenure.proved(100.0, 7, 3.0)
    for now in (101.9, 102.1):
        assert lease.valid(now) == tenure.covers(now)
