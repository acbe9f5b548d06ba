"""Write protocol/rfprotocol/resp/commands.json from what running servers say about their commands.

    redis-server --port 7700 &                       # the reference, and the oldest
    /opt/redis-8/bin/redis-server --port 7800 &      # later ones, as many as there are
    python deploy/generate_commands.py --port 7700 --port 7800

The table is data, taken from COMMAND and COMMAND DOCS of each server; what the proxy makes of it is decided in
`rfprotocol/resp/command_table.py`, and a test compares the file with the installed server.

A command has the row of the oldest server that has it. What a later server says otherwise is kept beside it, under
`later`, by version: nothing is lost, and `row_of` gives back what each server said. `since` is what the oldest server
that tells says, unless an older one has the command already (documentation of the vector sets came two releases after
them): then it is the version of that one.

Only built-in commands belong into the table, so the servers are to run without modules.
"""

from __future__ import annotations

import argparse
import json
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import hiredis

from rfprotocol.resp.command_table import parsed_version
from rfprotocol.resp.resp import encode_command

TARGET = Path(__file__).parent.parent / "protocol" / "rfprotocol" / "resp" / "commands.json"

FACTS = ("arity", "flags", "keys", "specs", "acl")
"""What COMMAND tells of a command. The rest of a row is from its documentation, and holds for all versions."""

Row = dict[str, Any]


def fetch(host: str, port: int) -> tuple[str, dict[str, Row]]:
    """The version of the server at `host:port`, and the row of each command that it has."""
    with socket.create_connection((host, port), timeout=10) as connection:
        _ask(connection, "HELLO", "3")  # COMMAND answers with maps
        info = _ask(connection, "INFO", "server")
        described = _ask(connection, "COMMAND")
        docs = _ask(connection, "COMMAND", "DOCS")
    version = next(line.partition(":")[2] for line in info.splitlines() if line.startswith("redis_version:"))
    commands: dict[str, Row] = {}
    for command in described:
        _add(commands, command, docs[command[0]])
    return version, commands


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
        "since": docs.get("since", ""),
        "group": docs["group"],
    }
    for subcommand in subcommands:
        _add(commands, subcommand, docs["subcommands"][subcommand[0]])


def _spec(spec: dict[str, Any]) -> list[Any]:
    """`[flags, [how to find the first argument, ...], [how to find the keys from there, ...]]`."""
    begin, find = spec["begin_search"], spec["find_keys"]
    return [sorted(spec["flags"]), [begin["type"], *begin["spec"].values()], [find["type"], *find["spec"].values()]]


def merge(servers: Iterable[tuple[str, Mapping[str, Row]]]) -> dict[str, Any]:
    """The content of commands.json, from the versions and rows of servers in any order, one of a release (7.0, 7.2).

    Raises ValueError if two are of the same release: what differs is told by release.
    """
    ordered = sorted(servers, key=lambda server: parsed_version(server[0]))
    if len({parsed_version(version)[:2] for version, _ in ordered}) < len(ordered):
        raise ValueError(f"two servers of one release: {', '.join(version for version, _ in ordered)}")
    commands: dict[str, Row] = {}
    for version, rows in ordered:
        for name, row in rows.items():
            _merge_row(commands.setdefault(name, row | {"seen": version}), version, row)
    for row in commands.values():
        seen = row.pop("seen")
        row["since"] = min(row["since"] or seen, seen, key=parsed_version)
    return {
        "source": "COMMAND and COMMAND DOCS of redis-server",
        "versions": [version for version, _ in ordered],
        "commands": dict(sorted(commands.items(), key=lambda item: item[0].lower())),
    }


def _merge_row(known: Row, version: str, row: Row) -> None:
    before = row_of(known, version)
    if changed := {fact: row[fact] for fact in FACTS if row[fact] != before[fact]}:
        known.setdefault("later", {})[version] = changed
    known["since"] = known["since"] or row["since"]


def row_of(row: Row, version: str) -> Row:
    """The `FACTS` of a row of commands.json as a server of that release, or the last one before it, told them."""
    facts = {fact: row[fact] for fact in FACTS}
    for changed_in, changed in row.get("later", {}).items():
        if parsed_version(changed_in)[:2] <= parsed_version(version)[:2]:
            facts |= changed
    return facts


def render(content: dict[str, Any]) -> str:
    """JSON with one command on each line, so that two versions can be compared."""
    head = {key: value for key, value in content.items() if key != "commands"}
    rows = [f'"{name}": {json.dumps(row, separators=(",", ":"))}' for name, row in content["commands"].items()]
    return json.dumps(head)[:-1] + ', "commands": {\n' + ",\n".join(rows) + "\n}}\n"


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, action="append", required=True, help="of one server; may be repeated")
    args = parser.parse_args()
    content = merge(fetch(args.host, port) for port in args.port)
    TARGET.write_text(render(content))
    print(f"{TARGET}: {len(content['commands'])} commands of Redis {', '.join(content['versions'])}")


if __name__ == "__main__":
    main()
