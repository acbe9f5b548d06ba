"""The command `rfproxy`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rfprotocol.errors import ConfigError
from rfprotocol.settings import logging_setup
from rfproxy.process.supervisor import Heritage, Supervisor
from rfproxy.settings import CHECK, ProxyConfig, parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT. Exit status 0, or 2 when the configuration is wrong."""
    try:
        parsed = parser().parse(argv)
        if parsed.command == CHECK:
            Heritage.take(os.environ)  # of the program that asks before a reload
            if parsed.config.embedded:
                _check_record(parsed.config)
            return 0
        logging_setup.configure(parsed.config.log_format, parsed.config.log_level)
        return Supervisor(parsed.config).run()
    except ConfigError as error:
        print(f"rfproxy: {error}", file=sys.stderr)
        return 2


def _check_record(config: ProxyConfig) -> None:
    """Raise ConfigError when the worker could not use what an earlier one has left."""
    from rfproxy.process.embedded import recall  # noqa: PLC0415 - it brings the manager

    recall(config)
