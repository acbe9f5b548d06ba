"""Things that take several commands, and often several connections: each function gives the rounds of one of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise

from rfprotocol.resp.resp import encode_command
from tests.differential import vocabulary
from tests.differential.case import Burst, Command, Round, command
from tests.differential.masks import Mask
from tests.differential.words import Words, lines

_DATA = tuple(line for line in lines(vocabulary.READS + vocabulary.WRITES) if line.split()[0] not in Mask.__members__)
_SHORT = tuple(line for line in _DATA if "{big" not in line)
_IN_TRANSACTION = lines(vocabulary.IN_TRANSACTION)
_BLOCKING = lines(vocabulary.BLOCKING)


class Situations:
    """For connection `me`, with the help of connection `other`, whose state it may reset."""

    def __init__(self, chance: random.Random, words: Words, me: int, other: int) -> None:
        self.chance = chance
        self.words = words
        self.me = me
        self.other = other

    def any(self) -> list[Round]:
        """One of them, at random."""
        ways: Sequence[tuple[Callable[[], list[Round]], int]] = (
            (self.transaction, 8),
            (self.watch, 5),
            (self.blocking, 1),
            (self.served, 3),
            (self.subscription, 5),
            (self.subscription_in_transaction, 1),
            (self.tracking, 4),
            (self.silence, 3),
            (self.scripts, 2),
            (self.odd_requests, 3),
        )
        return self.chance.choices([way for way, _ in ways], [weight for _, weight in ways])[0]()

    def transaction(self) -> list[Round]:
        """MULTI to EXEC or DISCARD, in one packet or several; sometimes with errors, or nothing in it."""
        chance, words = self.chance, self.words
        inside = [
            words.command(chance.choice(_DATA if chance.random() < 0.75 else _IN_TRANSACTION))
            for _ in range(chance.choice((0, 1, 3, 8)))
        ]
        if chance.random() < 0.1:
            inside.append(words.command(chance.choice(("HELLO 3 NONSENSE", "SELECT 2", "RESET", "NONSENSE a b"))))
        end = chance.choices(("EXEC", "DISCARD", "EXEC extra"), (8, 2, 1))[0]
        if chance.random() < 0.1:
            inside.insert(0, command("HELLO", chance.choice((2, 3))))
            end = f"GREETING {end}"
        behind = [words.command(chance.choice(_DATA)) for _ in range(chance.randrange(3))]
        commands = [words.command("MULTI"), *inside, words.command(end), *behind]
        if end.endswith("extra"):
            commands.append(words.command("DISCARD"))
        return self._spread(commands)

    def watch(self) -> list[Round]:
        """WATCH, a change by another connection or none, EXEC."""
        chance, words = self.chance, self.words
        key = words.key("str")
        hit = chance.random() < 0.5
        touch = command("SET", key, "touched") if hit else command("GET", key)
        before = [words.command("GET {s}"), words.command("SET {s} {v}")] if chance.random() < 0.3 else []
        inside = [words.command(chance.choice(_DATA)) for _ in range(chance.randrange(4))]
        odd = words.command(
            chance.choice(("WATCH {s}", "CLIENT SETNAME watching", "SELECT 1", "PING", "SELECT 0", "UNWATCH"))
        )
        watch = command("WATCH", key, words.key("str")) if chance.random() < 0.7 else command("WATCH", key)
        first = [watch, *before] if chance.random() < 0.7 else [watch, *before, odd]
        rounds = [*self._reset(), *self._spread(first)]
        multi = [words.command("MULTI"), *inside]
        if chance.random() < 0.5:
            rounds += self._spread(multi)
            multi = []
        if chance.random() < 0.8:
            rounds.append((Burst(self.other, (touch,)),))
        end = words.command(chance.choices(("EXEC", "DISCARD", "UNWATCH"), (8, 1, 1))[0])
        return [*rounds, *self._spread([*multi, end, words.command("GET {s}"), command("DISCARD")])]

    def blocking(self) -> list[Round]:
        """Commands that may wait, with others before and behind them; nobody comes to help."""
        words, chance = self.words, self.chance
        commands = [words.command(chance.choice(_BLOCKING)) for _ in range(2)]
        return self._spread([words.command(chance.choice(_DATA)), *commands, words.command(chance.choice(_DATA))])

    def served(self) -> list[Round]:
        """Somebody waits, and another connection gives."""
        chance = self.chance
        key, zset, stream = (self.words.prefix + name for name in (b"served", b"zserved", b"xserved"))
        ways: tuple[tuple[str, tuple[bytes | int, ...], str, tuple[bytes | int, ...]], ...] = (
            ("BLPOP", (b"none", key, 0), "RPUSH", (key, b"x")),
            ("BRPOP", (key, 5), "LPUSH", (key, b"x", b"y")),
            ("BLMOVE", (key, key + b"2", b"LEFT", b"RIGHT", 0), "RPUSH", (key, b"x")),
            ("BLMPOP", (0, 1, key, b"LEFT", b"COUNT", 2), "RPUSH", (key, b"x", b"y", b"z")),
            ("BZPOPMIN", (zset, 0), "ZADD", (zset, 1, b"x")),
            ("XREAD", (b"BLOCK", 0, b"STREAMS", stream, b"0"), "XADD", (stream, b"5-5", b"f", b"v")),
        )
        name, wait, giver, gift = chance.choice(ways)
        waiting = command(name, *wait, replies=0)
        behind = [self.words.command(chance.choice(_DATA), plain=True) for _ in range(chance.randrange(3))]
        # The replies come when the other connection has given: the command behind nothing stands for the first one.
        said = (waiting, *(Command(each.raw, 0, each.mask) for each in behind))
        heard = (Command(b""), *(Command(b"", 1, each.mask) for each in behind))
        clean = command("DEL", key, key + b"2", zset, stream)
        return [
            *self._reset(),
            (Burst(self.me, (clean,)),),
            (Burst(self.me, said),),
            (Burst(self.other, (command(giver, *gift),)),),
            (Burst(self.me, heard),),
        ]

    def subscription(self) -> list[Round]:
        """Subscribe, hear messages, do what is and is not allowed meanwhile, unsubscribe."""
        chance = self.chance
        three = chance.random() < 0.5
        channel, second = (self.words.prefix + name for name in (b"channel", b"second"))
        pattern = self.words.prefix + b"chan*"
        subscribe = [command("SUBSCRIBE", channel, second, replies=2)]
        count = 1
        if chance.random() < 0.5:
            subscribe.append(command("PSUBSCRIBE", pattern))
            count = 2
        if chance.random() < 0.3:
            subscribe.append(command("SSUBSCRIBE", channel))
        subscribe.append(command("SUBSCRIBE", channel))
        rounds = [*self._reset(three=three), *self._spread(subscribe)]
        for _ in range(chance.randint(1, 4)):
            rounds += self._message(channel, second, count)
        rounds += self._spread(self._meanwhile(three=three))
        if three:
            rounds += self._beside(channel, second, count)
        asked = (command("PUBSUB", "NUMSUB", channel, second, "none"), command("PUBSUB", "NUMPAT"))
        rounds.append((Burst(self.other, asked),))
        if chance.random() < 0.2:
            return [*rounds, *self._spread([command("RESET"), self.words.command("GET {s}")])]
        end = [command("UNSUBSCRIBE", channel, second, replies=2), command("PUNSUBSCRIBE", pattern)]
        end += [command("SUNSUBSCRIBE", channel), self.words.command("GET {s}"), command("SELECT", 1), command("RESET")]
        return [*rounds, *self._spread(end)]

    def _meanwhile(self, *, three: bool) -> list[Command]:
        """What a subscriber says that has nothing to do with its subscriptions."""
        words, chance = self.words, self.chance
        lines = ("PING", "PING {v}", "GET {s}", "SET {s} {v}", "NONSENSE", "GET", "ECHO {v}", "ADDRESS CLIENT INFO")
        said = [words.command(chance.choice(lines)) for _ in range(3)]
        if three and chance.random() < 0.5:
            said += [command("MULTI"), words.command("SET {s} {v}"), words.command("GET {s}"), command("EXEC")]
        elif chance.random() < 0.3:
            line = chance.choice(
                ("MULTI", "SELECT 1", "CLIENT GETNAME", "GREETING HELLO 3", "WATCH k", "EXEC", "AUTH x")
            )
            said += [words.command(line), command("PING"), command("DISCARD")]
        return said

    def _beside(self, channel: bytes, second: bytes, count: int) -> list[Round]:
        """What RESP3 allows a subscriber: to talk to itself, and to go back to RESP2."""
        chance = self.chance
        rounds: list[Round] = []
        if chance.random() < 0.5:
            rounds.append((Burst(self.me, (command("PUBLISH", second, "to myself", replies=2), command("PING"))),))
        if chance.random() < 0.3:
            rounds.append((Burst(self.me, (command("HELLO", 2, mask=Mask.GREETING), command("PING"))),))
            rounds += self._message(channel, second, count)
        return rounds

    def _message(self, channel: bytes, second: bytes, count: int) -> list[Round]:
        """Another connection publishes, to a channel that is heard or not."""
        which = self.chance.randrange(4)
        text = self.chance.choice((b"hello", b"", b"\r\n\x00", b"y" * 20_000))
        if which == 0:
            return [(Burst(self.other, (command("PUBLISH", second, text),)),), (Burst(self.me, (Command(b""),)),)]
        if which == 1:
            return [(Burst(self.other, (command("PUBLISH", self.words.prefix + b"none", text),)),)]
        publish = [command("PUBLISH", channel, text)] * self.chance.choice((1, 1, 5))
        heard = Command(b"", replies=count * len(publish))
        return [(Burst(self.other, tuple(publish)),), (Burst(self.me, (heard,)),)]

    def subscription_in_transaction(self) -> list[Round]:
        """SUBSCRIBE between MULTI and EXEC: confirmations stand where replies are expected."""
        channel = self.words.prefix + b"channel"
        inside = [command("MULTI"), self.words.command("SET {s} {v}"), command("SUBSCRIBE", channel), command("EXEC")]
        return [
            *self._reset(three=self.chance.random() < 0.5),
            *self._spread([*inside, command("PING"), command("RESET")]),
        ]

    def tracking(self) -> list[Round]:
        """CLIENT TRACKING in RESP3, whose invalidations are heard; in RESP2 nobody hears them."""
        chance = self.chance
        key, free = self.words.prefix + b"tracked", self.words.prefix + b"free"
        options = chance.choice(
            ([], ["NOLOOP"], ["BCAST"], ["BCAST", "PREFIX", self.words.prefix + b"tr"], ["OPTIN"], ["OPTOUT"])
        )
        three = chance.random() < 0.8
        heard = 1 if three else 0
        begin = [command("CLIENT", "TRACKING", "ON", *options)]
        if options == ["OPTIN"]:
            begin.append(command("CLIENT", "CACHING", "YES"))
        begin += [command("GET", key), command("CLIENT", "TRACKINGINFO"), command("CLIENT", "GETREDIR")]
        change = command("SET", key, chance.randrange(100))
        rounds = [*self._reset(three=three), *self._spread(begin), (Burst(self.other, (change,)),)]
        rounds.append((Burst(self.me, (Command(b"", heard),)),))
        if options == ["NOLOOP"]:
            rounds += self._spread([command("GET", key), command("SET", key, "own"), command("PING")])
        if options == ["OPTOUT"]:
            rounds += self._spread([command("CLIENT", "CACHING", "NO"), command("GET", free)])
            rounds.append((Burst(self.other, (command("SET", free, 1),)),))
        if options == []:
            rounds += self._spread(
                [command("GET", key), command("SET", key, "own", replies=1 + heard), command("PING")]
            )
            rounds += self._spread([command("CLIENT", "TRACKING", "ON", "BCAST"), command("CLIENT", "CACHING", "YES")])
        end = chance.choice(
            (command("CLIENT", "TRACKING", "OFF"), command("RESET"), command("CLIENT", "TRACKING", "OFF"))
        )
        return [*rounds, *self._spread([end, command("GET", key), command("CLIENT", "TRACKINGINFO"), command("RESET")])]

    def silence(self) -> list[Round]:
        """CLIENT REPLY OFF, SKIP and ON."""
        chance, words = self.chance, self.words
        off = command("CLIENT", "REPLY", "OFF", replies=0)
        skip = command("CLIENT", "REPLY", "SKIP", replies=0)
        unheard = [self._mute(words.command(chance.choice(_DATA), plain=True)) for _ in range(3)]
        if chance.random() < 0.5:
            unheard.append(
                self._mute(
                    words.command(chance.choice(("NONSENSE", "GET", "SELECT 1", "PING", "CLIENT SETNAME unheard")))
                )
            )
        if chance.random() < 0.2:
            unheard += [self._mute(each) for each in (command("MULTI"), words.command("SET {s} {v}"), command("EXEC"))]
        on = command("CLIENT", "REPLY", "ON") if chance.random() < 0.8 else command("RESET")
        behind = [words.command(chance.choice(_DATA)) for _ in range(3)] + [command("CLIENT", "GETNAME")]
        if chance.random() < 0.5:
            return self._spread([words.command("SET {s} {v}"), off, *unheard, on, *behind])
        once = unheard[0] if chance.random() < 0.8 else self._mute(command("NONSENSE"))
        return self._spread([words.command("SET {s} {v}"), skip, once, *behind, skip, self._mute(behind[0]), *behind])

    @staticmethod
    def _mute(each: Command) -> Command:
        return Command(each.raw, 0)

    def scripts(self) -> list[Round]:
        """A script that is loaded, called by its name, flushed, and gone."""
        words = self.words
        names = (
            "SCRIPT LOAD {script}",
            "EVALSHA {sha} 1 {s} {v}",
            "EVALSHA_RO {sha} 1 {s}",
            "SCRIPT EXISTS {sha} {sha}",
        )
        commands = [words.command(self.chance.choice(names)) for _ in range(4)]
        if self.chance.random() < 0.3:
            commands.insert(2, command("SCRIPT", "FLUSH"))
        return self._spread(commands)

    def odd_requests(self) -> list[Round]:
        """Requests that are allowed, and that no client library sends."""
        odd = (
            Command(b"*0\r\n", 0),
            Command(b"*-1\r\n", 0),
            Command(b"\r\n", 0),
            Command(b"\n", 0),
            Command(b"  \r\n", 0),
            Command(b"PING\n"),
            Command(b"  ping   'a\\'b' \r\n"),
            Command(b'echo "\\x41\\n\\t\\"\\\\"\r\n'),
            Command(b'"PING"\r\n'),
            Command(b"$5\r\n"),
            Command(b"+PONG\r\n"),
            Command(b"*1\r\n$0\r\n\r\n"),
            Command(b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n"),
            Command(b"*1\r\n$4\r\nping\r\n"),
            Command(b"*3\r\n$3\r\nGET\r\n$1\r\na\r\n$1\r\nb\r\n"),
            Command(encode_command([b"\xff\x00\r\nodd", b"\r\n", b"'"])),
            Command(encode_command([b"n" * 300, b"a" * 300, b"b" * 300])),
            Command(encode_command([b"CLIENT", b"\r\n"])),
            Command(encode_command([b"CONFIG"])),
            Command(encode_command([b"GET|x", b"k"])),
            Command(encode_command([b"CONFIG|GET", b"maxmemory"])),
            Command(b"'' a\r\n"),
        )
        commands = [self.chance.choice(odd) for _ in range(4)]
        if self.chance.random() < 0.2:
            commands = [command("MULTI"), *commands, command("EXEC")]
        return self._spread([*commands, self.words.command("GET {s}")])

    def farewell(self) -> list[Round]:
        """The connection is closed by the server."""
        errors = (
            b"*abc\r\n",
            b"*1\r\n#3\r\n",
            b"*2\r\n$-5\r\n",
            b"*1\r\n$600000000\r\n",
            b"*1\r\n$x\r\n",
            b"*4294967295\r\n",
            b"*1\r\n:5\r\n",
            b'GET "unbalanced\r\n',
            b'GET "a"b\r\n',
            b"q" * 65_600,
            b"*" + b"1" * 65_600,
            b"*1\r\n$" + b"1" * 65_600,
            b"*2\r\n$3\r\nGET\r\nGET\r\n",
        )
        # In one packet: what a server leaves unread when it closes may cost the client the last replies.
        end = self.chance.choice(
            (*(Command(error, closes=True) for error in errors), *[command("QUIT", closes=True)] * 4)
        )
        if self.chance.random() < 0.1:  # what a browser says costs the replies before it too
            return [(Burst(self.me, (Command(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", 0, closes=True),)),)]
        before = [self.words.command(self.chance.choice(_SHORT)) for _ in range(self.chance.randrange(4))]
        if self.chance.random() < 0.2:
            before.append(command("MULTI"))
        behind = [self._mute(self.words.command("SET {s} {v}"))] if end.raw.startswith(b"*1\r\n$4\r\nQUIT") else []
        return [(Burst(self.me, (*before, end, *behind)),)]

    def _reset(self, *, three: bool = False) -> list[Round]:
        """Both connections as if they had just come; `three`: the own one speaks RESP3."""
        mine = [command("RESET")] + ([command("HELLO", 3, mask=Mask.GREETING)] if three else [])
        return [(Burst(self.me, tuple(mine)), Burst(self.other, (command("RESET"),)))]

    def _spread(self, commands: Sequence[Command]) -> list[Round]:
        """Some commands in one round or several, cut into packets anywhere."""
        chance = self.chance
        stops = sorted(chance.sample(range(1, len(commands)), min(len(commands) - 1, chance.choice((0, 0, 1, 3)))))
        bounds = [0, *stops, len(commands)]
        return [(self.burst(commands[start:end]),) for start, end in pairwise(bounds)]

    def burst(self, commands: Sequence[Command]) -> Burst:
        """These commands at once, cut into packets anywhere."""
        size = sum(len(each.raw) for each in commands)
        if self.chance.random() < 0.02 and size < 300:
            return Burst(self.me, tuple(commands), tuple(range(1, size)))
        cuts = tuple(self.chance.randrange(size + 1) for _ in range(self.chance.choice((0, 0, 0, 1, 2, 5))))
        return Burst(self.me, tuple(commands), cuts)
