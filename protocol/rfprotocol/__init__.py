"""Shared by both programs: the store, the topology, the Redis protocol, and options.

embedded/        a store in memory, kept in a file, served over unix sockets
store/           the store as both programs see it: in memory, or ZooKeeper
settings/        options of a program, configuration files, passwords, and the log
network/         connections to servers by host name, and their state in the kernel
topology/        the records in the store, and their paths
resp/            the Redis serialization protocol and the command table, without I/O
backoff.py       delay before a failed attempt is repeated
clock.py         clock of leases, which goes on while the machine is suspended
errors.py        every exception that the programs raise on purpose
lease_margin.py  how long an answer of the store proves that a session lives
"""
