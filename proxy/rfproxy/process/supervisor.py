"""The parent of the workers: it starts them, replaces those that end, and keeps their listening sockets.

One thread that waits for signals. Workers are forked from it and share what it has loaded; so nothing else may run
here, no event loop and no thread.

    SIGTERM, SIGINT   all workers answer what is in flight and leave; then it ends
    SIGHUP, SIGUSR2   reload: the program as it is on the disk takes over, with its options as they are now
    SIGCHLD           a worker is gone
    READY             from a worker: it serves

On a reload the process, its workers and its sockets stay, and exec brings in the program; that then starts workers
of its own, and lets the former ones go when those serve. Whether it can read its options is tried beforehand, beside
all this: meanwhile signals are heard, and workers that end are replaced.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import structlog

from rfproxy.process import worker, worker_channel
from rfproxy.process.listen_sockets import address_of, adopt, from_systemd, open_sockets, share
from rfproxy.process.trial_run import Trial
from rfproxy.process.worker_slots import Crew, Succession
from rfproxy.settings import CHECK, ProxyConfig

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD, worker.READY)
_LONG = 3600.0
"""Seconds to wait for a signal when nothing is due."""
_VARIABLE = "REDIS_FAILOVER_PROXY_HERITAGE"


@dataclass(frozen=True, slots=True)
class Heritage:
    """What the program leaves to the one that takes over in its process."""

    listen: str
    sockets: Sequence[int]
    workers: Sequence[int]
    embedded: bool
    siblings: str = ""
    logins: int = -1  # a file of `_leave`, for what cannot be in an environment

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Heritage | None:
        """What was left to this program, if anything. The variable that says so is removed."""
        text = environ.pop(_VARIABLE, "")
        known = {field.name for field in fields(cls)}  # a later version may leave more
        return cls(**{name: value for name, value in json.loads(text).items() if name in known}) if text else None


class Supervisor:
    """The workers of one configuration. Raises ConfigError when it cannot listen."""

    def __init__(self, config: ProxyConfig, environ: MutableMapping[str, str] = os.environ) -> None:
        self._config = config
        self._log = structlog.get_logger()
        self._status = 0
        self._trial: Trial | None = None  # of the reload under way
        heritage = Heritage.take(environ)
        given = [adopt(fd) for fd in heritage.sockets] if heritage else from_systemd(environ)
        self._sockets = open_sockets(config.listen, config.workers, given)
        self._listen = heritage.listen if heritage else str(config.listen)
        if self._listen != str(config.listen):
            self._log.warning("listen_kept", listen=self._listen, error="another address needs a restart")
        # With a manager in each, two workers at a time would be two that decide.
        alone = config.embedded or (heritage is not None and heritage.embedded)
        self._succession = Succession.ONE_AFTER_ANOTHER if alone else Succession.SIDE_BY_SIDE
        self._crew = Crew(config.workers, heritage.workers if heritage else (), self._succession)
        self._logins = [*_login_of(config), *(_take(heritage.logins) if heritage else ())]
        """What is said to servers: by this program, and by the one before."""
        self._siblings = heritage.siblings if heritage else ""
        """The directory in which workers find each other."""

    def run(self) -> int:
        """Until all workers have left after SIGTERM or SIGINT. Returns the exit status."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who started us may have ignored it
        if self._config.workers > 1 and not (self._siblings and Path(self._siblings).is_dir()):
            self._siblings = self._meeting_place()
        gc.collect()
        gc.freeze()  # the collector would write to objects that workers share with this process
        self._log.info("supervising", workers=self._config.workers, listen=str(address_of(self._sockets[0])))
        while self._crew.pids or self._trial or not self._crew.dismissed:
            for number in self._crew.vacancies(time.monotonic()):
                self._start(number)
            alone = self._succession is Succession.ONE_AFTER_ANOTHER
            self._tell(self._crew.released(), signal.SIGTERM if alone else worker.RETIRE)
            self._wait()
            self._bury()
        if self._siblings:
            worker_channel.remove_directory(self._siblings)
        return self._status

    def _meeting_place(self) -> str:
        try:
            return worker_channel.make_directory()
        except OSError as error:
            self._log.warning("workers_apart", error=f"each knows its own clients only: {error}")
            return ""

    def _wait(self) -> None:
        now = time.monotonic()
        due = self._crew.next_due(now)
        rest = _LONG if due is None else due
        if self._trial is not None:
            if left := self._trial.time_left(now):
                rest = min(rest, left)
            else:
                self._trial.kill()
        heard = signal.sigtimedwait(_SIGNALS, rest)
        if heard is None or self._crew.dismissed:
            return
        match heard.si_signo:
            case signal.SIGTERM | signal.SIGINT:
                self._end()
            case signal.SIGHUP | signal.SIGUSR2:
                self._try_reload()
            case worker.READY:
                self._crew.serves(heard.si_pid)

    def _start(self, number: int) -> None:
        supervisor, now, relieves = os.getpid(), time.monotonic(), self._crew.relieves
        mine = share(self._sockets, self._config.workers, number)
        try:
            pid = os.fork()
        except OSError as error:  # as if it had ended at once
            self._log.error("worker_not_started", error=error.strerror)
            self._crew.started(number, 0, now)
            self._crew.ended(0, now)
            return
        if pid == 0:
            for sock in set(self._sockets) - set(mine):
                sock.close()
            former = next((login for login in self._logins if login not in _login_of(self._config)), None)
            os._exit(
                worker.main(self._config, mine, supervisor, relieves=relieves, siblings=self._siblings, former=former)
            )
        self._crew.started(number, pid, now)
        self._log.info("worker_started", worker=pid)

    def _bury(self) -> None:
        """Take note of all workers that have ended."""
        while self._crew.pids or self._trial:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if self._trial is not None and pid == self._trial.pid:
                trial, self._trial = self._trial, None
                self._tried(trial.problem(os.waitstatus_to_exitcode(status), time.monotonic()))
                continue
            if pid not in self._crew.pids:  # an orphan that came to us because this is process 1 of a container
                continue
            if self._siblings:
                worker_channel.remove_socket(self._siblings, pid)
            code = os.waitstatus_to_exitcode(status)
            pause = self._crew.ended(pid, time.monotonic())
            reason = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            if pause is None:
                self._log.info("worker_left", worker=pid, status=reason)
            else:
                self._log.warning("worker_ended", worker=pid, status=reason, replaced_in=pause)
            if code == worker.MISCONFIGURED and not self._crew.proven:
                self._status = code
                self._end()

    def _end(self) -> None:
        self._crew.dismiss()
        self._tell(self._crew.pids, signal.SIGTERM)
        if self._trial is not None:
            self._trial.kill()

    def _tell(self, pids: Iterable[int], number: signal.Signals) -> None:
        for pid in pids:  # not yet waited for, so the ids are theirs
            os.kill(pid, number)

    def _try_reload(self) -> None:
        if self._trial is not None:
            return  # it is under way
        try:
            self._trial = Trial(_command(CHECK), self._bequeathed(), time.monotonic())
        except OSError as error:
            self._tried(f"{sys.executable}: {error.strerror}")

    def _tried(self, problem: str) -> None:
        """The trial run is over: the program takes over, if nothing is wrong with it and it is still needed."""
        if self._crew.dismissed:
            return
        if problem:
            self._log.error("reload_refused", error=problem)
        else:
            self._reload()

    def _bequeathed(self, logins: int = -1) -> dict[str, str]:
        """The environment of the program that takes over."""
        fds = [sock.fileno() for sock in self._sockets]
        heritage = Heritage(self._listen, fds, sorted(self._crew.pids), self._config.embedded, self._siblings, logins)
        return os.environ | {_VARIABLE: json.dumps(asdict(heritage))}

    def _reload(self) -> None:
        for sock in self._sockets:
            sock.set_inheritable(True)
        self._log.info("reloading")
        try:
            with os.fdopen(_leave(self._logins), "rb") as logins:
                os.execve(sys.executable, _command(), self._bequeathed(logins.fileno()))
        except OSError as error:
            self._log.error("reload_refused", error=f"{sys.executable}: {error.strerror}")


_MOST_LOGINS = 2


def _login_of(config: ProxyConfig) -> list[worker.Login]:
    """What the options say."""
    return [(config.username or "", config.password.get_secret_value())] if config.password else []


def _leave(logins: Sequence[worker.Login]) -> int:
    """A file in memory that has no name, for the next program: an environment is shown to others, and inherited.

    While passwords are changed, a server may know the former one only.
    """
    fd = os.memfd_create("logins", 0)  # not closed by exec
    os.write(fd, json.dumps(list(dict.fromkeys(logins))[:_MOST_LOGINS]).encode())
    return fd


def _take(fd: int) -> list[worker.Login]:
    """What was left."""
    if fd < 0:
        return []
    try:
        os.lseek(fd, 0, os.SEEK_SET)
        with os.fdopen(fd, "rb") as file:
            return [(str(user), str(password)) for user, password in json.load(file)]
    except (OSError, ValueError, TypeError):
        return []  # of a program that does this in another way


def _command(*words: str) -> list[str]:
    """This program as it was called, with `words` before its options."""
    options = sys.argv[1:]
    program = sys.orig_argv[1 : len(sys.orig_argv) - len(options)]
    return [sys.executable, *program, *words, *options]
