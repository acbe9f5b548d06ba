"""The event loop around the core: sockets, timers, and the proxy's place in the store.

address_file.py       last known addresses of servers, in a file
client_limits.py      limits per client, and closing of clients that read too slowly
connections.py        transports of clients and of connections to servers
record_precedence.py  chooses between the record in the store and the one in force
registration.py       registers at the store, watches the topology, renews the lease
server.py             listener, timers, and connected clients
topology_cache.py     last known topology, in a file
"""
