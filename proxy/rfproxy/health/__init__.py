"""Silent servers, failed connections, and the rate of new ones.

connect_queue.py   bounds the connections that are being opened to one server
outage_log.py      logs failed connections as episodes with counts
server_silence.py  sends reads elsewhere while a server is silent; reports busy servers
"""
