"""Connections to servers by host name, and their state in the kernel.

address_cache.py  known addresses of host names, and when to look them up
resolver.py       looks up host names in the background, and connects to them
tcp_info.py       TCP state of a connection: does the other host still acknowledge?
"""
