"""Fixtures of the tests of the shared library."""

from tests.fuzz.conftest import build

__all__ = ["build"]
