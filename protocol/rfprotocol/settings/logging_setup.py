"""The log of both programs: one line per event, as JSON or readable, on stderr.

`configure` is called once, by `cli`. All others call `structlog.get_logger()` and log an event with its facts as
keywords: `log.info("master changed", epoch=7, master=node)`. What libraries log comes out in the same form.

With `Repeats`, lines that repeat themselves are counted instead of written (`log_limit.py`), in one place for the whole
program; it also ends the windows of that in time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from rfprotocol.settings.log_limit import LogLimiter

Format = Literal["json", "text"]
Level = Literal["debug", "info", "warning", "error"]

_LIBRARIES = ("kazoo", "redis", "asyncio")
"""Their messages below a warning are about themselves."""


class Repeats:
    """Lines that are counted instead of written, and the timer that reports the counts.

    `later(seconds, callback)` is the loop's timer; it may be called from the thread of a library. Without it a window
    ends with the next line, or with `report`.
    """

    def __init__(self, clock: Callable[[], float], limiter: LogLimiter | None = None) -> None:
        """`clock` is a monotonic one, in seconds."""
        self.limiter = limiter or LogLimiter()
        self.later: Callable[[float, Callable[[], None]], object] | None = None
        self._clock = clock
        self._alarm_at = math.inf

    def admits(self, level: str, fields: Mapping[str, object]) -> bool:
        """Whether a line, with its event among its fields, is to be written."""
        if "repeated" in fields:
            return True
        now = self._clock()
        if self.later is None and self.limiter.due() <= now:
            self.report()
        if self.limiter.admits(level, fields, now):
            return True
        if self.later is not None and self._alarm_at == math.inf:
            self._set_alarm(now)
        return False

    def report(self, *, all: bool = False) -> None:
        """Write the counts of the windows that are over, or of all of them: the program ends."""
        log = structlog.get_logger()
        for line in self.limiter.ended(math.inf if all else self._clock()):
            facts = {name: value for name, value in line.fields.items() if name not in ("event", "exc_info")}
            write = getattr(log, line.level)
            write(line.fields["event"], **facts, repeated=line.lines, seconds=self.limiter.window)

    def _set_alarm(self, now: float) -> None:
        self._alarm_at = self.limiter.due()
        if self.later is not None and self._alarm_at < math.inf:
            self.later(max(0.0, self._alarm_at - now), self._ring)

    def _ring(self) -> None:
        self.report()
        self._alarm_at = math.inf
        self._set_alarm(self._clock())


def configure(
    format: Format | None = None,
    level: Level = "info",
    stream: TextIO | None = None,
    *,
    repeats: Repeats | None = None,
    **facts: object,
) -> None:
    """Log events of `level` and above to `stream` (stderr); `format` None is text on a terminal, else JSON.

    `facts` are part of every event. `repeats` counts the lines that repeat themselves; without it all are written.
    """

    def limit(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        if repeats is not None and not repeats.admits(method, event):
            raise structlog.DropEvent
        return event

    def add_facts(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {**facts, **event}

    stream = sys.stderr if stream is None else stream
    least = logging.getLevelNamesMapping()[level.upper()]
    unfailing = cast(TextIO, _Unfailing(stream))  # structlog asks for a TextIO and uses these two methods of it
    stamps: list[Processor] = [
        add_facts,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering = _rendering(format or ("text" if stream.isatty() else "json"), stream.isatty())
    structlog.configure(
        processors=[limit, *stamps, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(unfailing),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder(), *stamps],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
    )
    handler = logging.StreamHandler(unfailing)
    handler.setFormatter(formatter)
    handler.addFilter(lambda record: repeats is None or repeats.admits(*_of_library(record)))
    logging.basicConfig(handlers=[handler], level=least, force=True)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(least if level == "debug" else max(least, logging.WARNING))


def _of_library(record: logging.LogRecord) -> tuple[str, Mapping[str, object]]:
    """The level and the fields of what a library logs; its words are both event and reason."""
    text = record.getMessage()
    return record.levelname.lower(), {"event": text, "logger": record.name, "error": str(record.msg)}


def _rendering(format: Format, colors: bool) -> list[Processor]:
    if format == "text":
        renderer = structlog.dev.ConsoleRenderer(
            colors=colors, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
        )
        return [_plain_facts, renderer]
    return [structlog.processors.format_exc_info, _plain_facts, _render_json]


def _plain_facts(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Values as people write them: an address, not the object that holds it. Secrets stay masked."""
    return {key: value if key == "exc_info" else _plain(value) for key, value in event.items()}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return str(value)


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    first = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    return json.dumps(first | dict(event))


class _Unfailing:
    """A log that cannot be written, such as a pipe whose reader left, must not stop what it is about."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()
