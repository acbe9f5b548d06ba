"""A proxy with the manager inside, for tests."""

from deploy.embedded import EmbeddedProxy

__all__ = ["EmbeddedProxy"]
