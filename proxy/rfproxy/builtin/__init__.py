"""Commands that the proxy answers itself.

client_command.py  CLIENT, and `INFO proxy`
dispatch.py        table of handlers; consent of the server before each
info.py            lines of the section `proxy` of INFO
reply_mode.py      CLIENT REPLY: ON, OFF, SKIP
worker_queries.py  CLIENT commands about clients of all workers
"""
