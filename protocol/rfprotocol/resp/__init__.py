"""The Redis serialization protocol (RESP2 and RESP3) and the command table, without I/O.

command_table.py  properties of each command: keys, effect, connection, repetition
commands.json     what servers of seven versions say about their commands
fast_path.py      counts plain commands in a packet without reading their arguments
inline.py         commands that a person types, with quotes
reply_scanner.py  ends of replies in a stream, without decoding it
resp.py           reads requests, and encodes replies
"""
