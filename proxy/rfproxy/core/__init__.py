"""Values and ports that the other packages share.

attempts.py        attempts at a command; isolates or refuses one that kills servers
client_auth.py     what a client may do before it has authenticated
counters.py        counts for the receipt of a change, and totals
memory_budget.py   one limit for the memory of all clients
peers.py           port to the other workers of the proxy
policy.py          options that the core has to know
ports.py           port to the program around the core
server_contact.py  last contact with a server over all its connections
work_items.py      items of a session's queue: runs, built-in commands, ready replies
"""
