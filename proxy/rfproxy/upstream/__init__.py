"""One connection to a server, and the exchange on it.

connection.py            queue of runs to send, and of runs in flight
durable_connection.py    WAIT behind each batch of writes; replies kept until its answer
handshake.py             first exchange on a connection: log in, check the server
handshake_policy.py      account that asks the questions of the handshake
latency.py               detects slow replies on a connection to a replica
long_reply_isolation.py  connections taken out of sharing during a long reply, and spares
long_reply_reissue.py    sends reads again that wait behind a long reply
probe_rights.py          accounts that may ask the questions of the handshake
replication_barrier.py   message in front of WAIT, so that it covers earlier writes
router_port.py           port to the router, for health checks and maintenance
"""
