"""The records in the store, and their paths.

records.py      record of a proxy, receipt of a change, request of an operator
topology.py     master, replicas, epoch, and phase; reports of managers
znode_paths.py  path of every record below the root
"""
