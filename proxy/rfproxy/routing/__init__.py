"""The connection for each command, and the wait for a master.

client_pause.py       CLIENT PAUSE, which the proxy applies itself
dedicated_pool.py     pool of dedicated connections per server and account
durable_router.py     router of a proxy with durable writes
hold_queue.py         sessions that wait for a master; bounded in time and bytes
lease.py              how long the proxy may act on its topology
replica_selection.py  replica for the reads of a session; slow ones are ejected
replication_grace.py  time after a change in which replicas follow the new master
route_cache.py        connections that a session's last commands took
router.py             connection for a command; closing and opening on a new topology
"""
