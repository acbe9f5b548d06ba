"""The sample configurations in `deploy/`, taken apart for a comparison with the models whose options they show."""

from __future__ import annotations

import re
from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy"
_OPTION = re.compile(r"^(# )?([a-z_]+):(?: (.*))?$", re.MULTILINE)


def options_set(name: str) -> set[str]:
    """The options that the sample sets."""
    return {option for commented, option, _ in _OPTION.findall((DEPLOY / name).read_text()) if not commented}


def options_shown(name: str) -> dict[str, str]:
    """The options that the sample shows commented out, with their value; empty for what is unset by default."""
    return {option: value for commented, option, value in _OPTION.findall((DEPLOY / name).read_text()) if commented}
