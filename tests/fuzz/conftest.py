"""Every check runs on the readers as they are and on the same readers compiled."""

from __future__ import annotations

import pytest

from tests.fuzz.builds import INTERPRETED, Build, compiled


@pytest.fixture(scope="session", params=["interpreted", "compiled"])
def build(request: pytest.FixtureRequest) -> Build:
    """The readers of requests and replies, in one of their two forms."""
    return compiled() if request.param == "compiled" else INTERPRETED
