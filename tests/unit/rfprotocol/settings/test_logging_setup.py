"""The log: one line per event, whoever logged it."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from rfprotocol.settings import logging_setup
from rfprotocol.topology.topology import Node, Phase


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_json_line_begins_with_time_level_and_event(stream: io.StringIO) -> None:
    logging_setup.configure("json", "info", stream)
    structlog.get_logger().info("master changed", epoch=7)
    (line,) = lines(stream)
    assert list(line) == ["timestamp", "level", "event", "epoch"]
    assert (line["level"], line["event"], line["epoch"]) == ("info", "master changed", 7)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])


def test_what_is_said_of_every_event_is_said_of_those_of_libraries_too(stream: io.StringIO) -> None:
    logging_setup.configure("json", "info", stream, worker=7)
    structlog.get_logger().info("listening")
    logging.getLogger("kazoo").warning("lost")
    assert [(line["event"], line["worker"]) for line in lines(stream)] == [("listening", 7), ("lost", 7)]


def test_values_are_written_as_people_write_them(stream: io.StringIO) -> None:
    logging_setup.configure("json", "info", stream)
    nodes = (Node("a", 1), Node("::1", 2))
    structlog.get_logger().info(
        "x", master=nodes[0], replicas=nodes, phase=Phase.SERVING, offsets={nodes[0]: 3}, n=None
    )
    (line,) = lines(stream)
    del line["timestamp"], line["level"], line["event"]
    assert line == {
        "master": "a:1",
        "replicas": ["a:1", "[::1]:2"],
        "phase": "serving",
        "offsets": {"a:1": 3},
        "n": None,
    }


def test_a_secret_that_is_logged_by_mistake_stays_masked(stream: io.StringIO) -> None:
    logging_setup.configure("json", "info", stream)
    structlog.get_logger().info("x", password=SecretStr("hunter2"), nested=[SecretStr("hunter2")])
    assert "hunter2" not in stream.getvalue()


def test_a_readable_line_holds_the_same(stream: io.StringIO) -> None:
    logging_setup.configure("text", "info", stream)
    structlog.get_logger().warning("node is down", node=Node("a", 1))
    assert re.fullmatch(r"\S+Z \[warning +\] node is down +node=a:1\n", stream.getvalue())


def test_without_a_terminal_the_default_is_json(stream: io.StringIO) -> None:
    logging_setup.configure(stream=stream)
    structlog.get_logger().info("x")
    assert lines(stream)[0]["event"] == "x"


def test_on_a_terminal_the_default_is_text() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    logging_setup.configure(stream=stream)
    structlog.get_logger().info("hello")
    assert "hello" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_events_below_the_level_are_not_logged(stream: io.StringIO) -> None:
    logging_setup.configure("json", "warning", stream)
    structlog.get_logger().info("x")
    logging.getLogger("anything").info("x")
    assert stream.getvalue() == ""


def test_what_libraries_log_comes_out_in_the_same_form_with_their_name(stream: io.StringIO) -> None:
    logging_setup.configure("json", "info", stream)
    logging.getLogger("kazoo.client").warning("connection %s", "dropped")
    (line,) = lines(stream)
    assert (line["level"], line["event"], line["logger"]) == ("warning", "connection dropped", "kazoo.client")
    assert "timestamp" in line


@pytest.mark.parametrize(("level", "shown"), [("info", False), ("debug", True)])
def test_small_talk_of_libraries_is_shown_only_on_debug(
    stream: io.StringIO, level: logging_setup.Level, shown: bool
) -> None:
    logging_setup.configure("json", level, stream)
    logging.getLogger("kazoo.client").info("connecting")
    assert bool(stream.getvalue()) is shown


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_traceback_is_part_of_its_event(stream: io.StringIO, form: logging_setup.Format) -> None:
    logging_setup.configure(form, "info", stream)
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        structlog.get_logger().exception("it broke")
        logging.getLogger("kazoo").exception("it broke there")
    assert stream.getvalue().count("RuntimeError: boom") == 2
    if form == "json":
        assert all("RuntimeError" in line["exception"] for line in lines(stream))


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise ValueError("closed")

    logging_setup.configure("json", "info", Broken())
    structlog.get_logger().info("x")
    logging.getLogger("kazoo").warning("x")


class Time:
    """A clock, and the timer that goes by it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.alarms: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, ring: Callable[[], None]) -> None:
        """Ring then."""
        self.alarms.append((self.now + seconds, ring))

    def passes(self, seconds: float) -> None:
        """Time passes, and alarms ring."""
        self.now += seconds
        due, self.alarms = [a for a in self.alarms if a[0] <= self.now], [a for a in self.alarms if a[0] > self.now]
        for _, ring in due:
            ring()


def test_logs__repeated_lines__written_then_counted(stream: io.StringIO) -> None:
    time = Time()
    repeats = logging_setup.Repeats(lambda: time.now)
    logging_setup.configure("json", "info", stream, repeats=repeats, worker=7)
    repeats.later = time.later
    log = structlog.get_logger()
    for port in range(1000):
        log.warning("client_error", error="this is HTTP", client=f"a:{port}")
    assert [line["client"] for line in lines(stream)] == [f"a:{port}" for port in range(5)]
    time.passes(10.0)
    *_, last = lines(stream)
    assert len(lines(stream)) == 6
    assert (last["client"], last["repeated"], last["seconds"]) == ("a:999", 995, 10.0)
    assert (last["level"], last["worker"]) == ("warning", 7)
    assert repeats.limiter.left_out == 995
    time.passes(10.0)
    assert (len(lines(stream)), time.alarms) == (6, [])
    for port in range(7):
        log.warning("client_error", error="this is HTTP", client=f"b:{port}")
    time.passes(10.0)
    assert lines(stream)[-1]["repeated"] == 2


def test_logs__program_ends__counts_are_reported(stream: io.StringIO) -> None:
    repeats = logging_setup.Repeats(lambda: 0.0)
    logging_setup.configure("json", "info", stream, repeats=repeats)
    for _ in range(9):
        structlog.get_logger().warning("masterdown", error="held for 30 s", exc_info=False)
    repeats.report(all=True)
    assert lines(stream)[-1]["repeated"] == 4


def test_logs__no_timer__window_ends_with_the_next_line(stream: io.StringIO) -> None:
    time = Time()
    logging_setup.configure("json", "info", stream, repeats=logging_setup.Repeats(lambda: time.now))
    for _ in range(9):
        structlog.get_logger().warning("masterdown", error="held for 30 s")
    time.passes(60.0)
    structlog.get_logger().warning("lane_lost", reason="Connection refused")
    assert [line.get("repeated") for line in lines(stream)[5:]] == [4, None]


def test_logs__libraries_that_repeat_themselves__counted(stream: io.StringIO) -> None:
    repeats = logging_setup.Repeats(lambda: 0.0)
    logging_setup.configure("json", "info", stream, repeats=repeats)
    for port in range(100):
        logging.getLogger("kazoo").warning("Connection dropped: port %d", port)
    assert len(lines(stream)) == 5
    repeats.report(all=True)
    assert (lines(stream)[-1]["repeated"], lines(stream)[-1]["logger"]) == (95, "kazoo")
