"""One Redis server as the gem's managers ask it: each operation on a connection of its own, with a limit in time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


class Unavailable(Exception):
    """A server did not do in time what it was asked."""


@dataclass(frozen=True, slots=True)
class Server:
    """Known by its address as a text, which is all that the gem compares."""

    address: str
    patience: float = field(default=5.0, compare=False)  # seconds for each operation

    def __str__(self) -> str:
        return self.address

    def healthcheck(self) -> None:
        """Raises Unavailable."""
        with self._client() as client:
            client.echo("healthcheck")

    def info(self) -> dict[str, Any]:
        """All of INFO. Raises Unavailable."""
        with self._client() as client:
            found: dict[str, Any] = client.info()
        return found

    def is_master(self) -> bool:
        """Raises Unavailable."""
        return bool(self.info()["role"] == "master")

    def follows(self, other: Server) -> bool:
        """Raises Unavailable."""
        info = self.info()
        return info["role"] == "slave" and f"{info['master_host']}:{info['master_port']}" == other.address

    def syncs(self) -> bool:
        """Whether it is being filled by its master. Raises Unavailable."""
        return bool(self.info().get("master_sync_in_progress"))

    def refuses_stale_reads(self) -> bool:
        """Raises Unavailable."""
        with self._client() as client:
            found = client.config_get("slave-serve-stale-data")
        return "no" in found.values()

    def lag(self) -> int:
        """How long it has not heard of its master, in seconds; less than 0 if it must not be promoted.

        Raises Unavailable.
        """
        info = self.info()
        if info["role"] == "master" or info.get("master_sync_in_progress"):
            return -1
        return max(int(info.get("master_last_io_seconds_ago", -1)), int(info.get("master_link_down_since_seconds", -1)))

    def promote(self) -> None:
        """Raises Unavailable."""
        if not self.is_master():
            with self._client() as client:
                client.execute_command("SLAVEOF", "NO", "ONE")  # type: ignore[no-untyped-call]

    def follow(self, other: Server) -> None:
        """Raises Unavailable."""
        if not self.follows(other):
            host, _, port = other.address.rpartition(":")
            with self._client() as client:
                client.execute_command("SLAVEOF", host, port)  # type: ignore[no-untyped-call]

    @contextmanager
    def _client(self) -> Iterator[redis.Redis]:
        host, _, port = self.address.rpartition(":")
        client = redis.Redis(
            host=host,
            port=int(port),
            socket_timeout=self.patience,
            socket_connect_timeout=self.patience,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            with client:
                yield client
        except (redis.RedisError, OSError) as error:
            raise Unavailable(f"{self.address}: {error}") from error
