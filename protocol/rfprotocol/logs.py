"""The log of both programs: one line per event, as JSON or readable, on stderr.

`configure` is called once, by `cli`. All others call `structlog.get_logger()` and log an event with its facts as
keywords: `log.info("master changed", epoch=7, master=node)`. What libraries log comes out in the same form.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Format = Literal["json", "text"]
Level = Literal["debug", "info", "warning", "error"]

_LIBRARIES = ("kazoo", "redis", "asyncio")
"""Their messages below a warning are about themselves."""


def configure(
    format: Format | None = None, level: Level = "info", stream: TextIO | None = None, **facts: object
) -> None:
    """Log events of `level` and above to `stream` (stderr); `format` None is text on a terminal, else JSON.

    `facts` are part of every event.
    """

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
        processors=[*stamps, *rendering],
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
    logging.basicConfig(handlers=[handler], level=least, force=True)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(least if level == "debug" else max(least, logging.WARNING))


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
