"""Fuzzing of what reads bytes from clients and servers: `python -m tests.fuzz --seconds 600`."""
