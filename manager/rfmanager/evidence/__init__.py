"""Facts for a decision, drawn from reports and records. Pure.

agreement.py     verdict on each server from the reports of all managers
candidates.py    which server may become the master, and which should
consistency.py   complaints: too few managers, or differing options
false_alarms.py  more time for a master after changes that came too soon
gem_lock.py      seats in the lock of the gem's node managers
last_known.py    state of the group when its master was last seen
membership.py    servers that belong to the group
versions.py      which server can copy the data of which other
"""
