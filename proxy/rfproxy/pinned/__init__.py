"""Sessions on a dedicated connection, and their state there.

pin_state.py            reasons for the pin, and restoring them on another connection
pinning.py              takes and releases the dedicated connection of a session
pubsub.py               SUBSCRIBE, its variants, and MONITOR
redirect_connection.py  connection that receives invalidations for a REDIRECT target
remote_redirect.py      CLIENT TRACKING REDIRECT to a client of another worker
session_registry.py     sessions of this process by client id
tracking_redirect.py    CLIENT TRACKING REDIRECT between two clients of a worker
"""
