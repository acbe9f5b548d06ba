"""Cases at random: the same seed gives the same case."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import count

from tests.differential import vocabulary
from tests.differential.case import Burst, Case, Command, Round, command, single
from tests.differential.masks import Mask
from tests.differential.situations import Situations
from tests.differential.words import Words, lines

_READS = lines(vocabulary.READS)
_WRITES = lines(vocabulary.WRITES)
_DATA = _READS + _WRITES + lines(vocabulary.MASTER_ONLY)
_SCRIPTS = lines(vocabulary.SCRIPTS)
_SCRIPTED_READS = lines(vocabulary.SCRIPTED_READS)
_SERVER = lines(vocabulary.SERVER)
_CONNECTION = lines(vocabulary.CONNECTION)
_UNMASKED = tuple(line for line in _READS + _WRITES if line.split()[0] not in Mask.__members__)
_MIXES = {
    "data": (_DATA, (1, 3, 10, 40)),
    "connection": (_CONNECTION + _DATA[:20], (1, 3, 8)),
    "server": (_SERVER + _DATA[:40], (1, 3, 8)),
}
CONNECTIONS = 3


def cases(seed: int) -> Iterator[tuple[int, Case]]:
    """Cases of a server that is read from like a single one, with the seed of each."""
    for number in count():
        yield (each := _seed(seed, number)), on_master(each)


def settled_cases(seed: int) -> Iterator[tuple[int, Case]]:
    """Cases whose reads may be answered by replicas that have settled between the rounds."""
    for number in count():
        yield (each := _seed(seed, number)), on_replicas(each)


def _seed(seed: int, number: int) -> int:
    return seed * 1_000_000 + number


def on_master(seed: int) -> Case:
    """Anything goes, on several connections."""
    chance = random.Random(seed)
    words = [Words(chance, b"%d:" % number) for number in range(CONNECTIONS)]
    rounds: list[Round] = []
    for _ in range(chance.randint(2, 12)):
        me = chance.randrange(CONNECTIONS)
        situations = Situations(chance, words[me], me, (me + 1) % CONNECTIONS)
        way = chance.choices(("situation", "data", "connection", "server", "together"), (6, 6, 3, 2, 3))[0]
        if way == "situation":
            rounds += situations.any()
        elif way == "together":
            each = [Situations(chance, words[number], number, 0) for number in range(CONNECTIONS)]
            rounds.append(tuple(one.burst(some(chance, one.words, _DATA, (1, 10, 40))) for one in each))
        else:
            rounds.append((situations.burst(some(chance, words[me], *_MIXES[way])),))
    if chance.random() < 0.15:
        rounds += Situations(chance, words[0], 0, 1).farewell()
    return Case(tuple(rounds))


def on_replicas(seed: int) -> Case:
    """Writes, alone or with reads, in packets that go to the master as a whole; reads when all of that has arrived."""
    chance = random.Random(seed)
    words = [Words(chance, b"%d:" % number) for number in range(2)]
    rounds: list[Round] = []
    for _ in range(chance.randint(2, 8)):
        me = chance.randrange(2)
        spoken = words[me]
        way = chance.choices(
            ("mixed", "writes", "transaction", "connection", "scripts", "situation"), (6, 6, 2, 2, 1, 2)
        )[0]
        reads = _READS
        if way == "situation":
            rounds += one_by_one(Situations(chance, spoken, me, 1 - me).any())
            continue
        if way == "transaction":
            commands = [command("MULTI"), *some(chance, spoken, _UNMASKED, (1, 5)), command("EXEC")]
        elif way == "connection":
            commands = some(
                chance, spoken, ("SELECT {small_db}", "GREETING HELLO 3", "GREETING HELLO 2", "RESET"), (1,)
            )
        elif way == "scripts":
            commands, reads = some(chance, spoken, _SCRIPTS, (1, 3)), _SCRIPTED_READS
        else:
            commands = some(chance, spoken, _WRITES + _READS if way == "mixed" else _WRITES, (1, 3, 10, 40))
            commands.insert(0, command("SETNX", spoken.prefix + b"written", 1))
        rounds.append(single(me, commands))
        if way != "connection" and chance.random() < 0.1:
            rounds.append((Burst(me, tuple(some(chance, spoken, reads, (5, 20)))),))
        rounds += [single(me, some(chance, spoken, reads, (1,))) for _ in range(chance.randint(1, 20))]
    return Case(tuple(rounds))


def one_by_one(rounds: Sequence[Round]) -> list[Round]:
    """The same without pipelining."""
    return [single(burst.connection, [each]) for turn in rounds for burst in turn for each in burst.commands]


def some(chance: random.Random, words: Words, vocabulary: Sequence[str], sizes: Sequence[int]) -> list[Command]:
    """One of so many commands."""
    return [words.command(line) for line in chance.choices(vocabulary, k=chance.choice(sizes))]
