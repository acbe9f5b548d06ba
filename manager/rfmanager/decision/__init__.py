"""The next step, decided from one view of the group. Pure.

adoption.py    finds the master when no record can be trusted
decide.py      the decision itself, with its invariants
fencing.py     withdraw, wait for the proxies, publish: common to all changes
plan.py        view, progress, and steps: the words of a decision
reconcile.py   keeps replicas and lists right while no change is under way
switchover.py  change of the master that an operator requests
"""
