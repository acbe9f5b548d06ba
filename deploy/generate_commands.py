"""Write protocol/rfprotocol/commands.json from what a running redis-server says about its commands.

    redis-server --port 7777 &
    python deploy/generate_commands.py --port 7777

The table is data, taken from COMMAND and COMMAND DOCS of one version; what the proxy makes of it is decided in
`rfprotocol/commands.py`, and a test compares the file with the installed server.
"""

from __future__ import annotations

import argparse
import json
import socket
from pathlib import Path
from typing import Any

import hiredis

from rfprotocol.resp import encode_command

TARGET = Path(__file__).parent.parent / "protocol" / "rfprotocol" / "commands.json"

Row = dict[str, Any]


def fetch(host: str, port: int) -> dict[str, Any]:
    """The content of commands.json, as the server at `host:port` has it."""
    with socket.create_connection((host, port), timeout=10) as connection:
        _ask(connection, "HELLO", "3")  # COMMAND answers with maps
        info = _ask(connection, "INFO", "server")
        described = _ask(connection, "COMMAND")
        docs = _ask(connection, "COMMAND", "DOCS")
    version = next(line.partition(":")[2] for line in info.splitlines() if line.startswith("redis_version:"))
    commands: dict[str, Row] = {}
    for command in described:
        _add(commands, command, docs[command[0]])
    return {
        "source": "COMMAND and COMMAND DOCS of redis-server",
        "version": version,
        "commands": dict(sorted(commands.items())),
    }


def _ask(connection: socket.socket, *args: str) -> Any:
    reader = hiredis.Reader(encoding="utf-8")
    connection.sendall(encode_command([arg.encode() for arg in args]))
    while (reply := reader.gets()) is False:
        reader.feed(connection.recv(1 << 20))
    return reply


def _add(commands: dict[str, Row], command: list[Any], docs: dict[str, Any]) -> None:
    name, arity, flags, first, last, step, categories, _tips, specs, subcommands = command
    commands[name] = {
        "arity": arity,
        "flags": sorted(flags),
        "keys": [first, last, step],
        "specs": [_spec(spec) for spec in specs],
        "acl": sorted(category.removeprefix("@") for category in categories),
        "since": docs["since"],
        "group": docs["group"],
    }
    for subcommand in subcommands:
        _add(commands, subcommand, docs["subcommands"][subcommand[0]])


def _spec(spec: dict[str, Any]) -> list[Any]:
    """`[flags, [how to find the first argument, ...], [how to find the keys from there, ...]]`."""
    begin, find = spec["begin_search"], spec["find_keys"]
    return [sorted(spec["flags"]), [begin["type"], *begin["spec"].values()], [find["type"], *find["spec"].values()]]


def render(content: dict[str, Any]) -> str:
    """JSON with one command on each line, so that two versions can be compared."""
    head = {key: value for key, value in content.items() if key != "commands"}
    rows = [f'"{name}": {json.dumps(row, separators=(",", ":"))}' for name, row in content["commands"].items()]
    return json.dumps(head)[:-1] + ', "commands": {\n' + ",\n".join(rows) + "\n}}\n"


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    content = fetch(args.host, args.port)
    TARGET.write_text(render(content))
    print(f"{TARGET}: {len(content['commands'])} commands of Redis {content['version']}")


if __name__ == "__main__":
    main()
