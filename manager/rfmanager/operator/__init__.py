"""Commands of operators, and their output.

comparison.py    settings in which servers differ from their master
doctor.py        rules that find what makes a group unsafe
doctor_facts.py  facts for the doctor, and the form of its findings
inspection.py    collects the facts from servers and store
migration.py     what does not hold yet while a group moves from the gem
operations.py    status, failover, pause, history: through the store alone
rendering.py     tables for people, JSON for programs
snapshot.py      every record of the store, decoded, and what follows
"""
