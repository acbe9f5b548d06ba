"""The processes of the proxy, and what they share.

descriptor_budget.py  shares the open files of a worker among their uses
embedded.py           runs the manager's daemon inside the proxy
listen_sockets.py     listening sockets, which outlive every worker
supervisor.py         parent process: starts and replaces workers, reloads the program
trial_run.py          checks before a reload that the new program can start
worker.py             one worker process: event loop, server, and registration
worker_channel.py     questions between workers, over unix sockets
worker_slots.py       which workers to start and stop, and when
"""
