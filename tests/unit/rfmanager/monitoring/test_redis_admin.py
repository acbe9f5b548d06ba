"""What a manager sees of, and does to, a real Redis server."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import redis
import uvloop

from rfmanager.monitoring.redis_admin import Canary, Credentials, RedisAdmin, failure_of, info_fields, parse_info
from rfprotocol.errors import Failure, NodeRefused, NodeUnreachable
from rfprotocol.network.resolver import Resolver
from rfprotocol.settings.keyring import Keyring
from rfprotocol.topology.topology import Node, NodeReport
from tests.support.eventually import eventually
from tests.support.hosts import Network
from tests.support.names import LookUps
from tests.support.redis import RedisGroup, RedisServer, free_port


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@contextlib.asynccontextmanager
async def admin_of(server: RedisServer, credentials: Credentials | None = None) -> AsyncIterator[RedisAdmin]:
    admin = RedisAdmin(server.node, credentials or Credentials(), timeout=30.0)
    try:
        yield admin
    finally:
        await admin.close()


async def until(admin: RedisAdmin, satisfied: Callable[[NodeReport], bool]) -> None:
    """Redis has no event for these."""
    while True:
        if satisfied(await admin.probe()):
            return
        await asyncio.sleep(0.005)


def linked(report: NodeReport) -> bool:
    return report.link_up


async def test_a_master_and_its_replica_say_who_they_are(redis_group: RedisGroup) -> None:
    redis_group.master.command("SET", "k", "v")
    redis_group.wait_in_sync()
    async with admin_of(redis_group.master) as of_master, admin_of(redis_group.replicas[0]) as of_replica:
        master, replica = await of_master.probe(), await of_replica.probe()
    assert (master.role, master.connected_replicas, master.condition) == ("master", 2, "ok")
    assert (replica.role, replica.follows, replica.link_up) == ("slave", redis_group.master.node, True)
    assert replica.replid == master.replid
    assert replica.offset > 0
    assert replica.run_id != master.run_id
    assert not replica.empty


async def test_a_server_on_ipv6_is_administered_as_any_other() -> None:
    with RedisServer(bind="::1") as server:
        async with admin_of(server) as admin:
            report = await admin.probe()
    assert str(report.node) == f"[::1]:{server.port}"
    assert report.empty


async def test_a_sealed_replica_keeps_data_history_and_offset_and_resumes_partially(redis_group: RedisGroup) -> None:
    redis_group.master.command("SET", "k", "v")
    redis_group.wait_in_sync()
    replica = redis_group.replicas[0]
    async with admin_of(replica) as admin:
        before = await admin.probe()
        await admin.seal()
        sealed = await admin.probe()
        assert (sealed.role, sealed.follows, sealed.link_up) == ("slave", None, False)
        assert (sealed.replid, sealed.empty) == (before.replid, False)
        assert sealed.offset >= before.offset
        with pytest.raises(redis.ReadOnlyError):
            replica.command("SET", "k", "other")
        await admin.replicate(redis_group.master.node)
        await until(admin, linked)
    assert redis_group.master.info("stats")["sync_partial_ok"] == 1


async def test_a_sealed_master_keeps_its_history_and_refuses_writes(redis_server: RedisServer) -> None:
    redis_server.command("SET", "k", "v")
    async with admin_of(redis_server) as admin:
        before = await admin.probe()
        await admin.seal()
        sealed = await admin.probe()
    assert (sealed.role, sealed.replid) == ("slave", before.replid)
    with pytest.raises(redis.ReadOnlyError):
        redis_server.command("SET", "k", "other")


async def test_a_promoted_replica_remembers_the_history_it_continues(redis_group: RedisGroup) -> None:
    async with admin_of(redis_group.replicas[0]) as admin:
        before = await admin.probe()
        promoted = await admin.promote()
        again = await admin.promote()
    assert promoted.role == "master"
    assert (promoted.replid2, promoted.replid2_offset > 0) == (before.replid, True)
    assert again.replid == promoted.replid, "promoting twice changes nothing"


async def test_a_write_that_waits_for_a_paused_master_is_refused_after_its_demotion(redis_group: RedisGroup) -> None:
    master, target = redis_group.master, redis_group.replicas[0]
    async with admin_of(master) as of_master, admin_of(target) as of_target:
        await of_master.pause_writes(10.0)
        write = asyncio.create_task(asyncio.to_thread(master.command, "SET", "k", "v"))
        await until(of_master, lambda report: int(master.info("clients")["blocked_clients"]) > 0)
        await of_target.promote()
        await of_master.demote_and_unpause(target.node)
        with pytest.raises(redis.ReadOnlyError):
            await write
        await until(of_master, linked)


async def test_unpausing_lets_writes_through(redis_server: RedisServer) -> None:
    async with admin_of(redis_server) as admin:
        await admin.pause_writes(60.0)
        write = asyncio.create_task(asyncio.to_thread(redis_server.command, "SET", "k", "v"))
        await admin.unpause()
        assert await write in (True, "OK")


async def test_a_password_is_used_for_the_servers_and_between_them() -> None:
    with RedisGroup(0), RedisServer(requirepass="secret") as master, RedisServer(requirepass="secret") as replica:
        async with admin_of(replica, Credentials(password="secret")) as admin:
            await admin.set_master_credentials(await admin.log_in())
            await admin.replicate(master.node)
            await until(admin, linked)


async def test_a_replication_user_of_the_site_is_replaced_together_with_its_password() -> None:
    with RedisGroup(0), RedisServer(requirepass="secret") as master, RedisServer(requirepass="secret") as replica:
        async with admin_of(replica, Credentials(password="secret")) as admin:
            with replica.client() as client:
                client.config_set("masteruser", "replication")
                client.config_set("masterauth", "its-own")
            await admin.set_master_credentials(await admin.log_in())
            await admin.replicate(master.node)
            await until(admin, linked)


def change_password(server: RedisServer, password: str) -> None:
    """Whoever is connected stays so."""
    server.command("CONFIG", "SET", "requirepass", password)
    server.options["requirepass"] = password


async def test_log_in__password_changed__is_refused_although_the_connection_stands() -> None:
    with RedisServer(requirepass="old") as server:
        async with admin_of(server, Credentials(password="old")) as admin:
            assert await admin.log_in() == Credentials(password="old")
            await admin.probe()
            change_password(server, "new")
            await admin.probe()
            with pytest.raises(NodeRefused) as refused:
                await admin.log_in()
    assert refused.value.code == "WRONGPASS"


async def test_log_in__no_password_known__nothing_is_tried() -> None:
    assert await RedisAdmin(Node("no-such-host.invalid", 1)).log_in() == Credentials()


async def test_greeting__refused__says_the_new_password_on_the_same_connection() -> None:
    with RedisServer(requirepass="new") as server:
        keyring = Keyring(Credentials(password="old"), lambda: Credentials(password="new"))
        admin = RedisAdmin(server.node, keyring, timeout=30.0)
        assert (await admin.probe()).role == "master"
        assert keyring.accepted_by(server.node) == Credentials(password="new")
        assert int(server.info("stats")["total_connections_received"]) <= 4, "the start, this question, and one more"
        await admin.close()


async def test_greeting__password_for_a_server_without_one__the_former_state_is_remembered() -> None:
    with RedisServer() as server:
        said = [Credentials()]
        keyring = Keyring(said[0], lambda: said[0])
        admin = RedisAdmin(server.node, keyring, timeout=30.0)
        await admin.probe()
        said[0] = Credentials(password="new")
        assert keyring.reload()
        await admin.close()
        assert (await admin.probe()).role == "master"
        change_password(server, "new")
        await admin.close()
        assert (await admin.probe()).role == "master"
        await admin.close()


async def test_command__new_connections_refused__borrows_one_that_stands(redis_group: RedisGroup) -> None:
    replica = redis_group.replicas[0]
    replica.command("CONFIG", "SET", "requirepass", "old")
    replica.options["requirepass"] = "old"
    probing, commands = (RedisAdmin(replica.node, Credentials(password="old"), timeout=30.0) for _ in range(2))
    commands.borrow_from(probing)
    await probing.probe()
    change_password(replica, "new")
    with pytest.raises(NodeRefused):
        await probing.log_in()
    both = await asyncio.gather(probing.probe(), commands.seal(), commands.probe())
    assert [report.role for report in both] == ["slave"] * 3
    await commands.demote_and_unpause(redis_group.master.node)
    await probing.close()
    with pytest.raises(NodeRefused):
        await commands.seal()
    await commands.close()


async def test_command__server_is_full__borrows_a_connection_that_stands(redis_group: RedisGroup) -> None:
    replica = redis_group.replicas[0]
    probing, commands = (RedisAdmin(replica.node, timeout=30.0) for _ in range(2))
    commands.borrow_from(probing)
    await probing.probe()
    with replica.client() as operator:
        full = int(operator.info("clients")["connected_clients"])
        operator.config_set("maxclients", full)
        assert (await commands.seal()).role == "slave"
        operator.config_set("maxclients", full + 100)
    await probing.close()
    await commands.close()


async def test_admits__asks_the_server_itself() -> None:
    with RedisServer(requirepass="right") as server:
        server.command("ACL", "SETUSER", "copies", "on", ">c", "+psync", "+replconf", "+ping")
        async with admin_of(server) as admin:
            assert await admin.admits(Credentials(password="right"))
            assert not await admin.admits(Credentials(password="wrong"))
            assert not await admin.admits(Credentials())
            assert await admin.admits(Credentials("copies", "c")), "it may copy, and nothing else"


async def test_master_credentials__are_read_as_they_were_written(redis_server: RedisServer) -> None:
    async with admin_of(redis_server) as admin:
        assert await admin.master_credentials() == Credentials()
        await admin.set_master_credentials(Credentials("u", "p"))
        assert await admin.master_credentials() == Credentials("u", "p")
        await admin.set_master_credentials(Credentials())
        assert await admin.master_credentials() == Credentials("u", "p"), "who has no password sets none"


async def test_a_missing_or_wrong_password_is_an_answer_and_never_shown() -> None:
    with RedisServer(requirepass="right") as server:
        async with admin_of(server) as admin:
            with pytest.raises(NodeRefused) as missing:
                await admin.probe()
        async with admin_of(server, Credentials("default", "wrong-one")) as admin:
            with pytest.raises(NodeRefused) as wrong:
                await admin.probe()
    assert missing.value.code == "NOAUTH"
    assert wrong.value.code == "WRONGPASS"
    assert "wrong-one" not in str(wrong.value)
    assert "wrong-one" not in repr(Credentials("default", "wrong-one"))


async def test_auth__server_does_not_know_it__password_is_not_told() -> None:
    with RedisServer(rename_command="AUTH nobody") as server:
        async with admin_of(server, Credentials("default", "secret")) as admin:
            with pytest.raises(NodeRefused) as refused:
                await admin.probe()
    assert "unknown command" in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_a_server_without_a_free_client_slot_has_answered() -> None:
    with RedisServer() as server, server.client() as occupant:
        occupant.ping()
        occupant.config_set("maxclients", 1)
        async with admin_of(server) as admin:
            with pytest.raises(NodeRefused) as refused:
                await admin.probe()
    assert refused.value.code in ("MAXCLIENTS", "ERR")


async def test_a_loading_server_is_available_but_loading() -> None:
    with RedisServer(loading_process_events_interval_bytes=1024) as server:
        with server.client() as client:
            client.mset({f"key{n}": "x" * 100 for n in range(2000)})
            client.save()
        server.options["key_load_delay"] = 5000
        server.restart()
        async with admin_of(server) as admin:
            assert (await admin.probe()).condition == "loading"
            with pytest.raises(NodeRefused) as refused:
                await admin.seal()
    assert refused.value.code == "LOADING"


async def test_a_server_that_cannot_save_says_misconf() -> None:
    with RedisServer() as server:
        (server.folder / "dump.rdb").mkdir()  # a file cannot replace it
        with server.client() as client:
            client.bgsave()
        async with admin_of(server) as admin:
            await until(admin, lambda report: report.condition == "misconf" and report.unsaved == "its RDB dump")


async def test_a_server_busy_with_a_script_has_answered() -> None:
    with RedisServer(lua_time_limit=1) as server:
        script = asyncio.create_task(asyncio.to_thread(_endless_script, server))
        async with admin_of(server) as admin:
            with pytest.raises(NodeRefused) as refused:
                await until(admin, lambda report: False)
        assert refused.value.code == "BUSY"
        server.command("SCRIPT", "KILL")
        await script


def _endless_script(server: RedisServer) -> None:
    with contextlib.suppress(redis.RedisError):
        server.command("EVAL", "while true do end", 0)


async def test_a_replica_whose_full_transfer_was_interrupted_still_has_and_says_its_old_data() -> None:
    with RedisGroup(2, repl_backlog_size="16kb") as group:
        group.master.command("SET", "k", "v")
        group.wait_in_sync()
        async with admin_of(group.replicas[0]) as admin:
            await admin.seal()
            before = await admin.probe()
            with group.master.client() as client:
                client.config_set("rdb-key-save-delay", 100_000)
                for key in range(100):
                    client.set(f"k{key}", "x" * 1000)
            await admin.replicate(group.master.node)  # it has missed more than the backlog holds
            await until(admin, lambda report: report.syncing)
            await admin.seal()
            report = await admin.probe()
    assert (report.offset, report.replid, report.empty) == (before.offset, before.replid, False)


@pytest.mark.parametrize("said", ["role:master\r\nmaster_repl_offset:many\r\n", "well", 1, ["role"], None])
async def test_something_else_than_info_is_an_answer_that_nobody_can_read(
    monkeypatch: pytest.MonkeyPatch, said: object
) -> None:
    async def garbled(*command: str) -> object:
        return said

    admin = RedisAdmin(Node("h", 1))
    monkeypatch.setattr(admin, "_ask", garbled)
    with pytest.raises(NodeRefused, match="answers INFO with something else") as refused:
        await admin.probe()
    assert refused.value.code == "UNKNOWN"
    await admin.close()


def test_a_replica_that_has_forgotten_its_master_while_loading_has_no_offset_to_compare() -> None:
    said = (
        "# Replication\r\nrole:slave\r\nmaster_link_status:down\r\nslave_repl_offset:0\r\nmaster_repl_offset:5000\r\n"
    )
    assert parse_info(Node("h", 1), info_fields(said), 0.0).offset == -1


def test_lines_of_info_that_are_no_fields_are_passed_over() -> None:
    said = "# Replication\r\nrole:master\r\nsomething of a fork\r\n\r\nmaster_repl_offset:7\r\n"
    assert parse_info(Node("h", 1), info_fields(said), 0.0).offset == 7


async def test_a_closed_port_and_a_silent_server_are_unreachable() -> None:
    admin = RedisAdmin(Node("127.0.0.1", free_port()))
    with pytest.raises(NodeUnreachable, match="cannot be reached"):
        await admin.probe()
    await admin.close()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        admin = RedisAdmin(Node("127.0.0.1", silent.getsockname()[1]), timeout=0.05)
        with pytest.raises(NodeUnreachable, match="in time"):
            await admin.probe()
        await admin.close()


async def test_the_canary_notices_a_killed_server_at_once(redis_server: RedisServer) -> None:
    closed = asyncio.Event()
    canary = await Canary.connect(redis_server.node, closed.set)
    assert canary.alive
    redis_server.kill()
    await closed.wait()
    assert not canary.alive


async def test_a_canary_that_is_put_away_says_nothing(redis_server: RedisServer) -> None:
    closed = asyncio.Event()
    canary = await Canary.connect(redis_server.node, closed.set)
    canary.close()
    redis_server.kill()
    assert not closed.is_set()
    with pytest.raises(NodeUnreachable):
        await Canary.connect(redis_server.node, closed.set)


def test_what_a_script_names_its_errors_does_not_change_who_the_server_is() -> None:
    # EVAL "return redis.error_reply('X\\28run_id no such thing')" 0: Redis shows the first word, as it was sent but for
    # '#', ':', CR and LF.
    said = "role:master\r\nrun_id:abc\r\nloading:0\r\n\r\n# Errorstats\r\nerrorstat_X\x1crun_id:count=1\r\n"
    assert parse_info(Node("h", 1), info_fields(said), 0.0).run_id == "abc"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), Failure.REFUSED),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 99] Cannot assign"), Failure.REFUSED),
        (ConnectionResetError(errno.ECONNRESET, "reset"), Failure.CLOSED),
        (BrokenPipeError(errno.EPIPE, "pipe"), Failure.CLOSED),
        (redis.ConnectionError("Connection closed by server."), Failure.CLOSED),
        (OSError(errno.EHOSTUNREACH, "No route to host"), Failure.UNREACHABLE),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), Failure.UNREACHABLE),
        (socket.gaierror(-2, "Name or service not known"), Failure.UNRESOLVED),
        (redis.InvalidResponse("Protocol Error: b'H'"), Failure.FOREIGN),
        (redis.ConnectionError("something else"), Failure.ERROR),
    ],
)
def test_failure_of__each_cause__has_its_reason(error: Exception, reason: Failure) -> None:
    assert failure_of(error) is reason
    wrapped = redis.ConnectionError("redis-py's own words")
    wrapped.__context__ = error
    assert failure_of(wrapped) is reason


async def test_admin__an_unknown_name__is_unresolved() -> None:
    admin = RedisAdmin(Node("no-such-host.invalid", 1))
    with pytest.raises(NodeUnreachable) as unreachable:
        await admin.probe()
    assert unreachable.value.reason is Failure.UNRESOLVED
    await admin.close()


async def test_admin__name_service_fails__last_known_address_under_its_name(redis_server: RedisServer) -> None:
    names = LookUps({"redis": ["127.0.0.1"]})
    resolver, node = Resolver(look_up=names.look_up), Node("redis", redis_server.port)
    admin = RedisAdmin(node, timeout=0.5, resolver=resolver)
    await admin.locate()
    names.says["redis"] = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    resolver.doubt("redis")
    await eventually(lambda: len(names.asked) == 2)
    names.speaks.clear()
    report = await admin.probe()
    assert (report.node, report.role) == (node, "master")
    canary = await Canary.connect(node, lambda: None, resolver)
    assert canary.alive
    canary.close()
    redis_server.kill()
    with contextlib.suppress(NodeUnreachable):  # the connection that was open is closed
        await admin.probe()
    with pytest.raises(NodeUnreachable, match=f"redis:{redis_server.port} cannot be reached") as unreachable:
        await admin.probe()
    assert unreachable.value.reason is Failure.REFUSED
    await admin.close()
    names.speaks.set()
    resolver.close()


async def test_admin__name_service_silent_from_the_beginning__unresolved_and_no_dead_server() -> None:
    names = LookUps({"redis": ["127.0.0.1"]})
    names.speaks.clear()
    admin = RedisAdmin(Node("redis", 1), timeout=0.05, resolver=Resolver(look_up=names.look_up))
    with pytest.raises(NodeUnreachable, match="redis:1 cannot be reached: the name service did not answer") as silent:
        await admin.probe()
    assert silent.value.reason is Failure.UNRESOLVED
    names.speaks.set()
    await admin.close()


@pytest.mark.parametrize("host", ["db..example", "a" * 64, "a\0b"])
async def test_admin__host_that_cannot_be_looked_up__unresolved(host: str) -> None:
    admin = RedisAdmin(Node(host, 1))
    for ask in (admin.locate, admin.probe):
        with pytest.raises(NodeUnreachable, match="cannot be reached: its name cannot be looked up") as unreachable:
            await ask()
        assert unreachable.value.reason is Failure.UNRESOLVED
    with pytest.raises(NodeUnreachable) as unreachable:
        await Canary.connect(Node(host, 1), lambda: None)
    assert unreachable.value.reason is Failure.UNRESOLVED
    await admin.close()


def test_info__of_a_sentinel__is_refused_as_one() -> None:
    admin = RedisAdmin(Node("h", 1))
    with pytest.raises(NodeRefused, match="h:1 is a Sentinel") as refused:
        admin._read("# Server\r\nredis_mode:sentinel\r\n", 0.0)
    assert refused.value.code == "SENTINEL"


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_admin__a_command_times_out__connection_is_reset(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """What was not acknowledged by then is not sent again: the other side hears RST, not the end of a stream."""

    async def trial() -> None:
        heard: asyncio.Queue[BaseException | bytes] = asyncio.Queue()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while data := await reader.read(1000):
                    writer.write(b"+OK\r\n" * data.count(b"*") if b"REPLICAOF" not in data else b"")
                heard.put_nowait(b"the end")
            except ConnectionResetError as error:
                heard.put_nowait(error)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            admin = RedisAdmin(Node(*server.sockets[0].getsockname()[:2]), timeout=0.3)
            with pytest.raises(NodeUnreachable, match="in time"):
                await admin.replicate(Node("h", 1))
            assert isinstance(await heard.get(), ConnectionResetError)
            await admin.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(trial())


@pytest.mark.elaborate
async def test_admin__a_lost_command_times_out__never_arrives(network: Network) -> None:
    host = network.host()
    server = RedisServer(bind=host.address, port=6379, protected_mode="no")
    host.take(server.process)
    with server:
        admin = RedisAdmin(server.node, timeout=0.5)
        await admin.probe()
        network.drop_to(host)
        with pytest.raises(NodeUnreachable):
            await admin.replicate(Node("10.97.0.99", 1))
        network.heal()
        await asyncio.sleep(1.5)  # retransmissions come after 0.2, 0.4, 0.8 s
        assert server.info()["role"] == "master"
        await admin.close()


async def test_info__of_a_server__says_version_and_eviction(redis_server: RedisServer) -> None:
    async with admin_of(redis_server) as admin:
        report, said = await admin.probe(), redis_server.info("server")
        assert report.software == said.get("server_name", "")
        assert report.version == said.get("valkey_version", said["redis_version"])
        redis_server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        assert (await admin.probe()).eviction == "", "it has no maxmemory"
        redis_server.command("CONFIG", "SET", "maxmemory", "100mb")
        assert (await admin.probe()).eviction == "allkeys-lru"


def test_info__of_valkey__says_its_own_version() -> None:
    said = "role:master\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n"
    report = parse_info(Node("h", 1), info_fields(said), 0.0)
    assert (report.software, report.version) == ("valkey", "9.1.2")


async def test_events__asked_now_and_then(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    redis_server.command("CONFIG", "SET", "notify-keyspace-events", "Ex")
    async with admin_of(redis_server) as admin:
        await admin.probe()
        assert (await admin.probe()).events == "xE"
        redis_server.command("CONFIG", "SET", "notify-keyspace-events", "")
        assert (await admin.probe()).events == "xE", "not with each probe"
        monkeypatch.setattr("rfmanager.monitoring.redis_admin.EVENTS_EVERY", 0.0)
        admin._events_due = 0.0
        await admin.probe()
        assert (await admin.probe()).events == ""
        assert (await admin.promote("KEA")).events == "KEA"
    assert redis_server.command("CONFIG", "GET", "notify-keyspace-events") == {"notify-keyspace-events": "AKE"}


async def test_events__refused__not_known_and_asked_once(redis_server: RedisServer) -> None:
    redis_server.command("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-config")
    async with admin_of(redis_server, Credentials("app", "pw")) as admin:
        for _ in range(3):
            assert (await admin.probe()).events is None
        report = await admin.promote("Ex")
        assert (report.role, report.events) == ("master", None)
    assert len(redis_server.command("ACL", "LOG")) == 2, "CONFIG GET once, and CONFIG SET"
