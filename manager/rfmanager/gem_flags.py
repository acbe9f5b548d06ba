"""The command line of the gem's `redis_node_manager`, in the words of rfmanager. Pure.

Ruby's OptionParser and `getopt` agree: flags may be abbreviated as long as one alone begins so, a value may be joined
to its flag or be the next word, whatever that is, and words that are no flags may stand anywhere.
"""

from __future__ import annotations

import getopt
from collections.abc import Sequence
from dataclasses import dataclass

from rfprotocol.errors import ConfigError
from rfprotocol.settings.yaml_file import is_zero, stripped

_FLAGS = (
    ("n", "nodes", "NODES", "Redis servers, HOST:PORT,... (without a port: 6379)"),
    ("z", "zkservers", "SERVERS", "ZooKeeper servers, HOST:PORT,..."),
    ("p", "password", "PASSWORD", "password of the Redis servers"),
    ("", "znode-path", "PATH", "root of the records of this group"),
    ("", "max-failures", "COUNT", "failures in a row that make a server unavailable"),
    ("C", "config", "PATH", "YAML file with all options; other flags are ignored then"),
    ("", "with-chroot", "ROOT", "chroot in ZooKeeper"),
    ("E", "environment", "ENV", "part of the file to use"),
    ("", "node-strategy", "STRATEGY", "majority, consensus or single"),
    ("", "failover-strategy", "STRATEGY", "offset or latency"),
    ("", "required-node-managers", "COUNT", "managers that must report on a server"),
)
_COUNTS = ("max-failures", "required-node-managers")
_LONG = {f"-{short}": f"--{long}" for short, long, _, _ in _FLAGS if short}

HELP = """usage: redis_node_manager [OPTIONS]

Runs rfmanager, with the options and files of Ruby's redis_failover and with its patience: a server counts as down when
an operation has failed as often as --max-failures says, 5 s for each. Variables RFMANAGER_... count as for rfmanager;
'rfmanager --help' shows them, and the commands to look at the group and to change it.

""" + "".join(
    f"  {f'-{short}, ' if short else '    '}{f'--{long} {value}':<32} {help}\n"
    for short, long, value, help in (*_FLAGS, ("h", "help", "", "show this and exit"))
)


@dataclass(frozen=True, slots=True)
class Translated:
    """The flags for rfmanager, and a sentence on each thing that is passed over."""

    argv: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    wants_help: bool = False


def translate(argv: Sequence[str]) -> Translated:
    """What was meant. Raises ConfigError for a flag that is unknown, ambiguous or lacks its value."""
    short = "".join(f"{letter}:" for letter, *_ in _FLAGS if letter)
    try:
        pairs, words = getopt.gnu_getopt(list(argv), f"h{short}", ["help", *(f"{long}=" for _, long, *_ in _FLAGS)])
    except getopt.GetoptError as error:
        raise ConfigError(f"{error.msg} (try --help)") from None
    given = {_LONG.get(flag, flag): stripped(value) for flag, value in pairs}
    if "-h" in given or "--help" in given:
        return Translated(wants_help=True)
    notices = []
    if words:
        notices.append(f"ignored: {len(words)} word{'s that belong' if len(words) > 1 else ' that belongs'} to no flag")
    if "--config" in given:
        if others := [flag for flag in given if flag not in ("--config", "--environment")]:
            notices.append(f"ignored beside --config: {', '.join(others)}: all options come from the file")
            given = {flag: value for flag, value in given.items() if flag not in others}
    elif given.pop("--environment", None) is not None:
        notices.append("ignored without --config: --environment, which names a part of the file")
    for flag in (f"--{name}" for name in _COUNTS):
        if is_zero(given.get(flag, "")):
            given[flag] = "1"
            notices.append(f"{flag}: 0 means 1, as with redis_failover: write 1")
    return Translated(tuple(f"{flag}={value}" for flag, value in given.items()), tuple(notices))
