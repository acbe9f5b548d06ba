"""Probes of one server, and commands to it.

conditions.py         words for the condition of a server
failure_detector.py   verdict on one server from its probes
prober.py             runs the probes of one server
redis_admin.py        commands to one server: state, role, and rights
replica_staleness.py  age of a replica's data, by offsets of the master
"""
