"""The proxy: hides changes of the master from clients.

__main__.py   `python -m rfproxy`
cli.py        the command `rfproxy`
process/      supervisor, workers, listening sockets, and the embedded mode
settings.py   options of `rfproxy`
runtime/      event loop around the core: sockets, timers, registration at the store
session/      one client: commands in order, replies in the same order
builtin/      commands that the proxy answers itself
pinned/       sessions on a dedicated connection: transactions, subscriptions, tracking
routing/      connection for each command, and commands that wait for a master
maintenance/  upkeep of servers by the proxy: scripts and key access times
health/       silent servers, failed connections, and the rate of new ones
upstream/     one connection to a server: handshake, queue, durable writes
semantics/    meaning of Redis commands, as pure functions and values
core/         values and ports that the other packages share
"""
