"""Port of the router: both routers offer all of it."""

from __future__ import annotations

from rfproxy.core.durability import Durability
from rfproxy.core.policy import Policy
from rfproxy.core.work_items import ReplyTarget
from rfproxy.upstream.router_port import RouterPort
from tests.support.playbook import Playbook


def test_routers_offer_port_under_every_policy() -> None:
    for policy in (Policy(), Policy(durable=Durability())):
        router: RouterPort = Playbook(policy).router
        assert isinstance(router, RouterPort)
        assert not isinstance(router, ReplyTarget), "compiled subclasses of abc.ABC would share a cache"
        assert router.policy.durable is policy.durable
        assert router.peers is None
        assert router.epoch == -1
        assert not router.lanes
