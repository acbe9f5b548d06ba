"""Real Redis servers for tests; the same processes as in `make run`."""

from deploy.processes import RedisGroup, RedisServer, free_port, wait_until

__all__ = ["RedisGroup", "RedisServer", "free_port", "wait_until"]
