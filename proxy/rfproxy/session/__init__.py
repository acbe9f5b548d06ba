"""One client: its commands in order, and the replies in the same order.

batching.py           turns commands into work items of the queue
client_departures.py  closes clients that leave at once, a few per turn
input_buffer.py       bytes from the client that are not read yet
outcome.py            decides for a lost command: send it again, or answer -UNCERTAIN
partial_reply.py      reply whose beginning was delivered before its connection died
responses.py          errors, replies that need a change, and lost replies
session.py            queue, state, and order of one client
transactions.py       WATCH, MULTI, EXEC, and DISCARD
"""
