"""Clients as their users have them, on the proxy, with a failover in the middle.

Every client library has a program in its own language that plays one of these roles:

    <program> <port> <role> <name> <RESP version>

`play`    all of `test_libraries.FEATURES`, commands without a pause while the master changes, all features again
`listen`  subscribes to the channel `name`, prints `message <text>` for every message, and ends with the message `end`
`pop`     one BLPOP of `name`:queue, for 30 s at most
`scan`    the keys `name`:scan:* and the fields of the hash `name`:fields, half of them before the failover

It signs in as the user `app` with the password `secret` and works on keys that begin with `name`. On its standard
output it says `ready` when the failover may come, and on its standard input it is told `go on` when there is a new
master. Its last line is its outcome, as JSON; `player.py` has the other end. What it does not expect
ends it with a traceback.
"""
