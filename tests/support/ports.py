"""Free TCP ports for servers that a test starts."""

from deploy.processes import free_port

__all__ = ["free_port"]
