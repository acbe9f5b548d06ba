"""Values and ports that the other packages share.

attempts.py        attempts at a command; isolates or refuses one that kills servers
counters.py        counts for the receipt of a change, and totals
durability.py      option for durable writes, and why a write falls short
identity.py        identity of a session towards a server; key of shared connections
memory_budget.py   one limit for the memory of all clients
peers.py           port to the other workers of the proxy
policy.py          options that the core has to know
ports.py           ports to the logger and to an upstream connection
server_contact.py  last contact with a server over all its connections
work_items.py      items of a session's queue: runs, built-in commands, ready replies
"""
