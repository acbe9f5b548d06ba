"""Every znode path, below one root (`--znode-path`).

`nodes`, `manager_node_state` and `manual_failover` are those of Ruby's `redis_failover` 1.0, called the gem below; the
others are additions. The gem's lock lies outside of the root.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_ROOT = "/redis_failover"


@dataclass(frozen=True, slots=True)
class Paths:
    """The paths of one group of Redis servers. `root` starts with a slash and does not end in one."""

    root: str = DEFAULT_ROOT

    @property
    def nodes(self) -> str:
        """The topology: the one record that decides who is master."""
        return f"{self.root}/nodes"

    @property
    def managers(self) -> str:
        """Folder of the managers' reports, one ephemeral each."""
        return f"{self.root}/manager_node_state"

    @property
    def lock(self) -> str:
        """Folder of the contenders for the role of primary manager, in order of arrival."""
        return f"{self.root}/master_redis_node_manager_lock"

    @property
    def gem_lock(self) -> str:
        """Folder of the seats in the lock of the gem's node managers: whoever has the lowest seat may act.

        The `zk` gem puts every lock below `/_zklocking`, inside the chroot, with two underscores for each slash of the
        name (its `lib/zk/locker/locker_base.rb`); the gem's name for it is that of `lock`.
        """
        return "/_zklocking/" + self.lock.replace("/", "__")

    @property
    def manual_failover(self) -> str:
        """A request of an operator: `ANY_SLAVE` or `host:port`."""
        return f"{self.root}/manual_failover"

    @property
    def proxies(self) -> str:
        """Folder of the proxies' acknowledgements, one ephemeral each."""
        return f"{self.root}/proxies"

    @property
    def history(self) -> str:
        """Folder of the receipts, one per change of master, named by its epoch."""
        return f"{self.root}/history"

    @property
    def paused(self) -> str:
        """Exists while operators have asked the managers to watch but not to act."""
        return f"{self.root}/paused"

    @property
    def last_known(self) -> str:
        """What the managers last knew of the servers while the master was well."""
        return f"{self.root}/last_known"

    @property
    def adopted(self) -> str:
        """Folder of the servers whose data operators allow to be overwritten, named by their addresses."""
        return f"{self.root}/adopted"

    @property
    def addresses(self) -> str:
        """The last known addresses of servers that have names."""
        return f"{self.root}/addresses"

    def manager(self, name: str) -> str:
        """The report of one manager."""
        return f"{self.managers}/{name}"

    def proxy(self, name: str) -> str:
        """The acknowledgement of one proxy."""
        return f"{self.proxies}/{name}"

    def receipt(self, epoch: int) -> str:
        """The receipt of the change that ended in `epoch`; padded, so that names sort by age."""
        return f"{self.history}/{epoch:010d}"
