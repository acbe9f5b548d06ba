"""The section `proxy` of INFO: what this proxy knows and has done, as lines of `name:value`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rfproxy.core.identity import Duty
from rfproxy.routing.hold_queue import GateState

if TYPE_CHECKING:
    from rfproxy.routing.router import Router

_STATES = {
    GateState.OPEN: "writes pass",
    GateState.FENCED: "there is no master, so writes wait",
    GateState.LAPSED: "the lease has lapsed for want of a word from ZooKeeper, so writes wait",
    GateState.RESTING: "the master cannot be reached, so writes wait",
}

FENCED = "rfmanager leads: a master that is deposed is sent no write any more before another one takes over"
NOT_FENCED = (
    "the managers of Ruby's redis_failover lead, which do not wait for proxies: a master that they depose may "
    "acknowledge writes that are lost"
)


def report(router: Router, now: float) -> bytes:
    """The section, in the form of Redis' own ones. Times in seconds."""
    topology, stats = router.topology, router.stats
    lanes = router.lanes
    fields: dict[str, object] = {
        "proxy_epoch": router.epoch,
        "proxy_epoch_acknowledged": router.acknowledged,
        "proxy_state": router.gate.state(now).name.lower(),
        "proxy_state_means": _STATES[router.gate.state(now)],
        "proxy_fencing": "no" if router.unfenced else "yes",
        "proxy_fencing_means": NOT_FENCED if router.unfenced else FENCED,
        "proxy_phase": topology.phase.value if topology else "",
        "proxy_master": topology.master or "" if topology else "",
        "proxy_replicas": ",".join(map(str, topology.replicas)) if topology else "",
        "proxy_unavailable": ",".join(map(str, topology.unavailable)) if topology else "",
        "proxy_silent_servers": ",".join(map(str, router.silent)),
        "proxy_busy_servers": ",".join(map(str, router.watch.busy)),
        "proxy_reads": router.policy.reads.value,
        "proxy_retry_writes": router.policy.retry_writes.value,
        "proxy_client_auth": router.policy.client_auth.value,
        "proxy_write_safety": "durable" if router.policy.durable else "async",
        "proxy_clients": stats.clients,
        "proxy_clients_total": stats.clients_total,
        "proxy_clients_refused": stats.clients_refused,
        "proxy_clients_memory": stats.clients_memory,
        "proxy_clients_memory_limit": stats.clients_memory_limit,
        "proxy_clients_stopped": stats.clients_stopped,
        "proxy_clients_evicted": stats.clients_evicted,
        "proxy_clients_waiting": len(router.gate.waiting()),
        "proxy_lanes_to_master": sum(lane.key.duty is Duty.MASTER for lane in lanes),
        "proxy_lanes_to_replicas": sum(lane.key.duty is not Duty.MASTER for lane in lanes),
        "proxy_lanes_exclusive": sum(lane.guest is not None for lane in lanes),
        "proxy_account_problems": router.reception.problems,
        "proxy_servers_unchecked": router.reception.unchecked,
        "proxy_errors": stats.errors,
        "proxy_log_lines_left_out": stats.log.left_out if stats.log else 0,
        "proxy_reads_spilled": stats.spilled,
        "proxy_batches_waited_for": stats.batches,
        "proxy_writes_unreplicated": stats.unreplicated,
        "proxy_scripts_copied": stats.scripts_copied,
        "proxy_reads_touched": stats.reads_touched,
        "proxy_workers_unheard": stats.workers_unheard,
        "proxy_change_held": stats.change.held,
        "proxy_change_replayed": stats.change.replayed,
        "proxy_change_uncertain": stats.change.uncertain,
        "proxy_change_longest_wait": f"{stats.change.longest_wait:.6f}",
    }
    lines = ["# Proxy", *(f"{name}:{value}" for name, value in fields.items())]
    return "".join(f"{line}\r\n" for line in lines).encode()
