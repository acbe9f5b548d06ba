"""Upkeep of the servers by the proxy itself.

access_recency.py      reports reads from replicas to a master that evicts
script_cache.py        scripts that clients loaded, for a new master
script_copies.py       loads the scripts of clients on the replicas, too
service_connection.py  connection for commands of the proxy itself
"""
