"""The reply to EXEC, taken apart and put together, for those whose transaction the proxy has a part in.

What the proxy itself has added to a transaction is left out, and a reply that needs a change is changed, each as the
bytes of a whole reply. One pass over the bytes, whatever their number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rfprotocol.errors import ProtocolError
from rfprotocol.resp import resp
from rfprotocol.resp.reply_scanner import split

_ARRAY = re.compile(rb"\*([0-9]{1,10})\r\n")


def elements(reply: bytes) -> list[bytes] | None:
    """The replies to the single commands, or None when the transaction was not executed (nil or an error).

    Raises ProtocolError when it is not one whole reply.
    """
    header = _ARRAY.match(reply)
    if header is None:
        return None
    found = split(reply[header.end() :])
    if len(found) != int(header[1]):
        raise ProtocolError("the reply to EXEC has another length than it says")
    return found


def join(replies: Sequence[bytes]) -> bytes:
    """The reply to EXEC with these replies to its commands."""
    return resp.array(replies)
