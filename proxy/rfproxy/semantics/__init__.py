"""The meaning of Redis commands, as pure functions and values.

blocking.py           remaining timeout of a blocking command, and its reply after it
client_auth.py        what a client may do before it has authenticated
client_syntax.py      lines of CLIENT LIST and INFO; arguments of CLIENT commands
exec_reply.py         splits and joins the reply to EXEC
hello_command.py      arguments of HELLO, and their effect on the session
retry_policy.py       may a command be sent again? The safety argument
scan_cursors.py       SCAN cursors, marked with the server process that issued them
subscriptions.py      subscriptions of a session; messages told from replies
tracking.py           arguments of CLIENT TRACKING, and invalidation messages
transaction_state.py  WATCH, MULTI, and queued commands of one transaction
"""
