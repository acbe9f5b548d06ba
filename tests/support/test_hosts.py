"""What the faults of networks rely upon. Needs root, as they do."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.processes import Process, wait_until
from tests.support.hosts import Host, Network
from tests.support.redis import RedisServer

pytestmark = pytest.mark.elaborate

DATAGRAMS = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); a = '{address}'; "
INTERFACES = "import socket; print(*(name for _, name in socket.if_nameindex()))"


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@contextlib.contextmanager
def server_on(host: Host) -> Iterator[RedisServer]:
    server = RedisServer(bind=host.address, port=6379, protected_mode="no")
    host.take(server.process)
    with server:
        yield server


def reaches(host: Host, server: RedisServer) -> bool:
    """Whether a client on `host` is answered by `server`."""
    command = f"timeout 1 redis-cli -h {server.bind} PING"
    return subprocess.run(host.within(["sh", "-c", command]), capture_output=True, check=False).stdout == b"PONG\n"


def test_the_machine_itself_is_left_as_it_was() -> None:
    before = socket.if_nameindex()
    with Network() as network:
        network.host()
        assert socket.if_nameindex() != before
    assert socket.if_nameindex() == before


def test_hosts_reach_each_other_and_the_test_reaches_all(network: Network) -> None:
    here, there = network.host(), network.host()
    with server_on(here) as server:
        assert reaches(there, server)
        assert server.command("PING") is True


def test_networks_of_the_same_addresses_do_not_meet(network: Network) -> None:
    with server_on(network.host()):
        script = "from tests.support.test_hosts import *\nwith Network() as n, server_on(n.host()): pass"
        subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


def test_a_host_that_is_cut_off_reaches_nobody_until_it_is_healed(network: Network) -> None:
    here, there, other = (network.host() for _ in range(3))
    with server_on(here) as server:
        here.cut()
        assert not reaches(there, server)
        assert not reaches(other, server)
        assert server.command("PING") is True
        here.heal()
        assert reaches(there, server)


def test_a_connection_outlives_a_cut(network: Network) -> None:
    here, there = network.host(), network.host()
    with server_on(here) as master, server_on(there) as replica:
        replica.command("CONFIG", "SET", "repl-timeout", 60)
        replica.command("REPLICAOF", here.address, 6379)
        wait_until(lambda: replica.info()["master_link_status"] == "up", "link")
        partial = master.info("stats")["sync_full"]
        there.cut()
        master.command("SET", "k", "v")
        there.heal()
        wait_until(lambda: replica.command("GET", "k") == "v", "the write")
        assert master.info("stats")["sync_full"] == partial


def test_parts_of_a_split_network_are_whole_in_themselves(network: Network) -> None:
    one, two, three, four = (network.host() for _ in range(4))
    with server_on(one) as first, server_on(three) as second:
        network.split([one, two])
        assert reaches(two, first)
        assert reaches(four, second)
        assert not reaches(four, first)
        assert not reaches(two, second)
        network.heal()
        assert reaches(four, first)


def test_what_is_dropped_in_one_direction_arrives_in_the_other(network: Network, tmp_path: Path) -> None:
    here, there, other = (network.host() for _ in range(3))
    listen = "s.bind((a, 9)); print('ready', flush=True); print(s.recv(9).decode(), flush=True)"
    listener = Process([sys.executable, "-c", DATAGRAMS.format(address=here.address) + listen], tmp_path / "log")
    here.take(listener)
    with server_on(here) as server:
        listener.start()
        wait_until(lambda: "ready" in listener.last_words(), "the listener")
        here.drop_to(there)
        assert not reaches(there, server)
        assert reaches(other, server)
        send = there.within(
            [sys.executable, "-c", DATAGRAMS.format(address=here.address) + "s.sendto(b'heard', (a, 9))"]
        )
        subprocess.run(send, check=True)
        listener.wait()
        assert "heard" in listener.last_words()
        here.heal()
        assert reaches(there, server)


def test_a_slow_host_hears_slowly(network: Network) -> None:
    here, there = network.host(), network.host()
    with server_on(here) as server:
        server.command("SET", "k", "x" * 100_000)
        read = there.within(["sh", "-c", f"timeout 1 redis-cli -h {here.address} --raw GET k | wc -c"])
        there.slow(200)  # four seconds for it
        assert int(subprocess.run(read, capture_output=True, check=True).stdout) < 100_000
        there.heal()
        assert int(subprocess.run(read, capture_output=True, check=True).stdout) == 100_001


def test_a_process_on_a_host_is_no_wrapper_and_dies_with_the_test(network: Network, tmp_path: Path) -> None:
    host = network.host()
    process = Process([sys.executable, "-c", f"{INTERFACES}; import time; time.sleep(60)"])
    process.log = tmp_path / "log"
    host.take(process)
    process.start()
    wait_until(lambda: "lan" in process.last_words(), "its output")
    assert Path(f"/proc/{process.pid}/exe").resolve() == Path(sys.executable).resolve()
    process.kill()
    starter = """
import os, signal
from pathlib import Path
from tests.support.test_hosts import *
with Network() as network:
    process = Process(["sleep", "60"])
    network.host().take(process)
    process.start()
    wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\\n", "exec")
    print(process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(__file__).parents[2]
    told = subprocess.run([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True, check=False, cwd=root)
    wait_until(lambda: not Path(f"/proc/{told.stdout.strip()}").exists(), "the end of the orphan")


def test_it_is_said_what_is_needed_when_there_can_be_no_hosts() -> None:
    script = "from tests.support.hosts import *\nwith Network(): pass"
    argv = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-all", sys.executable, "-c", script]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2], env=os.environ
    )
    assert "need root" in done.stderr.splitlines()[-1]
