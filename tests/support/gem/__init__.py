"""A stand-in for Ruby's `redis_failover` 1.0.2, called the gem: it behaves on the znodes as the gem does.

    client.py    its client: reads go to a slave, writes to the master; what it asks ZooKeeper, and when
    manager.py   its node manager: discovers, watches, promotes, and writes the record
    lock.py      the lock of its managers, which is that of the `zk` gem
    server.py    a Redis server as its managers ask it
    __main__.py  a node manager as a process

Everything is written from what the gem does, not from its code. Times are settings; the defaults are the gem's.
"""

from tests.support.gem.client import GemClient, NoMaster
from tests.support.gem.manager import Settings
from tests.support.gem.process import QUICK, gem_manager

__all__ = ["QUICK", "GemClient", "NoMaster", "Settings", "gem_manager"]
