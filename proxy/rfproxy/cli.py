"""The command `rfproxy`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rfprotocol import logs
from rfprotocol.errors import ConfigError
from rfproxy.config import CHECK, parser
from rfproxy.supervisor import Heritage, Supervisor


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT. Exit status 0, or 2 when the configuration is wrong."""
    try:
        parsed = parser().parse(argv)
        if parsed.command == CHECK:
            Heritage.take(os.environ)  # of the program that asks before a reload
            return 0
        logs.configure(parsed.config.log_format, parsed.config.log_level)
        return Supervisor(parsed.config).run()
    except ConfigError as error:
        print(f"rfproxy: {error}", file=sys.stderr)
        return 2
