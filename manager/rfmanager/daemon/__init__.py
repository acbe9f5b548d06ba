"""The running manager: it gathers, decides, and executes.

address_record.py  last known addresses of the servers, kept in the store
candidacy.py       seats in the two locks, proof of the tenure, its end
daemon.py          tasks of the manager, its report, and the loop of decisions
event_wait.py      waits for an event, for a bounded time
executor.py        carries out one step on servers and store
leadership.py      states of leadership; may this manager act now?
login_keeper.py    logs in at servers ahead of need; reads the password file again
server_watch.py    probers of the servers, and connections for commands to them
store_mirror.py    copy of the records, refreshed by watches
view_builder.py    view for a decision; what only shows over time
"""
