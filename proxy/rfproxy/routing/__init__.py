"""The connection for each command, and the wait for a master.

blocked_departures.py  clients that left while blocked; their connections still close
client_pause.py        CLIENT PAUSE, which the proxy applies itself
dedicated_pool.py      pool of dedicated connections per server and account
durable_router.py      router of a proxy with durable writes
event_loop.py          port to the event loop, for the router
hold_queue.py          sessions that wait for a master; bounded in time and bytes
lease.py               how long the proxy may act on its topology
replica_selection.py   replica for the reads of a session; slow ones are ejected
replication_grace.py   time after a change in which replicas follow the new master
route_cache.py         connections that a session's last commands took
router.py              connection for a command; closing and opening on a new topology
waiter.py              port to a session, for the router, hold queue, and pools
"""
