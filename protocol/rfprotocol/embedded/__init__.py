"""A store in memory for the embedded mode: kept in a file, and served to other processes.

record_file.py      file with the records, which one process at a time may use
record_keeper.py    thread that writes the records of a store to their file
socket_client.py    store that asks another process over a unix socket
socket_protocol.py  messages between client and server of such a socket
socket_server.py    serves a store over a unix socket
"""
