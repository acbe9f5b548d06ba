"""Real ZooKeeper servers for tests; the same processes as in `make demo`."""

from deploy.zookeeper import ZooKeeperEnsemble, ZooKeeperServer

__all__ = ["ZooKeeperEnsemble", "ZooKeeperServer"]
