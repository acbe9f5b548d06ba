"""The manager: watches the servers, and changes the master when it fails.

__main__.py   `python -m rfmanager`
cli.py        the command `rfmanager`: daemon and commands of operators
operator/     commands of operators: status, failover, history, doctor
daemon/       the running manager: leadership, copy of the store, execution of steps
settings.py   options of `rfmanager`
decision/     the next step, decided from one view of the group
evidence/     facts for a decision: verdicts, candidates, history of the data
monitoring/   probes of one server, and commands to it
gem_flags.py  flags of the gem's `redis_node_manager`, translated
"""
