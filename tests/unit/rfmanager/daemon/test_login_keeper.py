"""The logins of a manager at servers whose passwords change. Real servers: tests/scenarios/test_passwords.py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
import structlog
from structlog.testing import capture_logs

from rfmanager.daemon import login_keeper
from rfmanager.daemon.login_keeper import LoginKeeper
from rfmanager.monitoring.redis_admin import Credentials
from rfprotocol.errors import NodeRefused, NodeUnreachable
from rfprotocol.settings.keyring import Keyring
from rfprotocol.topology.topology import Node
from tests.support.eventually import eventually

NODE = Node("m", 1)
OLD, NEW = Credentials(password="old"), Credentials(password="new")


class Server:
    """Answers logins with what the test sets: credentials, or an error."""

    def __init__(self, answer: Credentials | Exception) -> None:
        self.answer = answer
        self.logins = 0

    async def log_in(self) -> Credentials:
        self.logins += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_keeper, "LOGIN_INTERVAL", 0.001)


def keeper(server: Server, read: Callable[[], Credentials] | None = None, key: Credentials = OLD) -> LoginKeeper:
    return LoginKeeper(Keyring(key, read), {NODE: server}, "m1", structlog.get_logger())


@contextlib.asynccontextmanager
async def running(keeper: LoginKeeper) -> AsyncIterator[None]:
    task = asyncio.create_task(keeper.run())
    yield
    assert not task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def twice(server: Server) -> None:
    """Wait for the end of one login that begins after this call."""
    enough = server.logins + 2
    await eventually(lambda: server.logins >= enough)


async def test_refusal_is_kept_and_logged_once_until_server_accepts() -> None:
    server = Server(NodeRefused(f"{NODE} WRONGPASS no", "WRONGPASS"))
    with capture_logs() as logs:
        logins = keeper(server)
        async with running(logins):
            await twice(server)
            assert logins.refusal(NODE) == "WRONGPASS no"
            server.answer = OLD
            await twice(server)
            assert logins.refusal(NODE) == ""
    assert [line["event"] for line in logs] == ["server refuses new connections", "server accepts new connections"]


@pytest.mark.parametrize("error", [NodeRefused("LOADING", "LOADING"), NodeUnreachable("gone")])
async def test_other_errors_are_left_to_the_detector(error: Exception) -> None:
    server = Server(error)
    with capture_logs() as logs:
        logins = keeper(server)
        async with running(logins):
            await twice(server)
    assert (logins.refusal(NODE), logs) == ("", [])


async def test_reload_logs_which_password_is_accepted() -> None:
    server = Server(OLD)
    with capture_logs() as logs:
        logins = keeper(server, read=lambda: NEW)
        logins.reload()
        async with running(logins):
            await twice(server)
    said = [line for line in logs if line["event"] == "server accepts new connections"]
    assert [line["password"] for line in said] == ["the former one"]
    assert next(line["changed"] for line in logs if line["event"] == "read the password file again")


async def test_reload_without_file_is_refused() -> None:
    with capture_logs() as logs:
        keeper(Server(OLD)).reload()
    assert [line["log_level"] for line in logs] == ["warning"]


async def test_keeper_is_needed_with_password_or_file() -> None:
    server = Server(Credentials())
    assert keeper(server).is_needed
    assert keeper(server, read=lambda: NEW, key=Credentials()).is_needed
    assert not keeper(server, key=Credentials()).is_needed
