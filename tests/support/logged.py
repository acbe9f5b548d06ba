"""What a program that runs has logged so far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def logged(log: Path) -> list[dict[str, Any]]:
    """The events of a log in JSON, the first one first; none when there is no such file yet.

    The last line may be on its way still, and other lines may be those of other programs.
    """
    written = log.read_text() if log.exists() else ""
    complete, _, _ = written.rpartition("\n")
    return [json.loads(line) for line in complete.splitlines() if line.startswith("{")]
