"""The store of the records: an interface, in memory, and ZooKeeper.

interface.py          operations, watches, and session states of every store
leader_election.py    elects a leader among the sessions of a store
memory.py             store in memory, with any number of sessions
zookeeper.py          store on ZooKeeper: operations that are bounded in time
zookeeper_session.py  session with ZooKeeper; the only module that imports kazoo
zookeeper_watches.py  one-shot watches that are set, and those to set again
"""
