"""A manager: watches the servers, reports, and, while it is the primary one, gathers, decides and executes.

Four things run side by side; a change of anything wakes the last one, which alone acts:

    server watch ─────────────> own report ──> announcer ──> store
    store watches ────────────> mirror ──────┐
    campaign, lease keeper ───> candidacy ───┼──> view builder ──> decide ──> executor
    own report ──────────────────────────────┘

Each of these objects owns its state; the daemon starts their tasks, hands their news on, and writes nothing of theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import structlog
from structlog.typing import FilteringBoundLogger

from rfmanager.daemon.address_record import AddressRecord
from rfmanager.daemon.candidacy import Candidacy
from rfmanager.daemon.event_wait import wait_for
from rfmanager.daemon.executor import Executor, NoTenure, kill_when_asked
from rfmanager.daemon.leadership import State
from rfmanager.daemon.login_keeper import LoginKeeper
from rfmanager.daemon.server_watch import ServerWatch
from rfmanager.daemon.store_mirror import Mirror
from rfmanager.daemon.view_builder import ViewBuilder
from rfmanager.decision.decide import decide
from rfmanager.decision.plan import Policy, Remember, Resign, Step, View, Wait
from rfmanager.evidence.agreement import Rule, Strategy
from rfmanager.monitoring.failure_detector import Limits
from rfmanager.monitoring.redis_admin import Credentials
from rfmanager.settings import ManagerConfig
from rfprotocol import clock
from rfprotocol.errors import (
    FenceLost,
    ManagerFailed,
    StoreConflict,
    StoreError,
    StoreUnavailable,
)
from rfprotocol.network.resolver import Resolver
from rfprotocol.settings.keyring import Keyring
from rfprotocol.settings.yaml_file import read_secret
from rfprotocol.store.interface import StoreState, TopologyStore
from rfprotocol.topology.topology import ManagerReport, Node, NodeReport
from rfprotocol.topology.znode_paths import DEFAULT_ROOT, Paths

ANNOUNCE_INTERVAL = 0.8  # seconds; a report that is not renewed for `Rule.max_age` does not count
COMMAND_TIMEOUT = 1.0  # seconds at most for one command to a server; the tenure must be certain for that long
ADDRESSES = 60.0  # seconds between looks at whether addresses are to be kept again
RETRY = 0.1  # seconds, when the store lost an answer


@dataclass(frozen=True, slots=True)
class Settings:
    """What the daemon has to know; `of` takes it from the options."""

    nodes: tuple[Node, ...]
    root: str = DEFAULT_ROOT
    credentials: Credentials = field(default_factory=Credentials)
    password_file: str | None = None  # where the password came from: it is read again
    former_credentials: Credentials | None = None  # of the program that this one took over from
    limits: Limits = field(default_factory=Limits)
    rule: Rule = field(default_factory=Rule)
    policy: Policy = field(default_factory=Policy)
    history_limit: int = 100
    max_staleness: float | None = None  # seconds

    @classmethod
    def of(cls, config: ManagerConfig) -> Settings:
        """From the options of `rfmanager`."""
        password = config.password.get_secret_value() if config.password else None
        limits = config.limits
        rule = Rule(Strategy(config.node_strategy), config.required_node_managers)
        # By then the others have noticed that a server is dead, and reports of managers that died with it do not count.
        outseen_after = limits.longest + rule.max_age
        return cls(
            nodes=config.nodes,
            root=config.znode_path,
            credentials=Credentials(config.username, password),
            password_file=config.password_file,
            limits=limits,
            rule=rule,
            policy=Policy(
                config.fence_wait,
                config.catch_up_timeout,
                brake_limit=config.brake_limit,
                outseen_after=outseen_after,
            ),
            history_limit=config.history_limit,
            max_staleness=config.max_staleness,
        )

    def keyring(self) -> Keyring[Credentials]:
        """The credentials, which change with the file."""
        path, username, former = self.password_file, self.credentials.username, self.former_credentials
        if path is None:
            return Keyring(self.credentials, former=former)
        return Keyring(self.credentials, lambda: Credentials(username, read_secret(path)), former)


class Daemon:
    """One manager, named uniquely. The store is started and closed by the caller, after `run` has ended."""

    def __init__(
        self,
        settings: Settings,
        store: TopologyStore,
        name: str,
        log: FilteringBoundLogger | None = None,
        failpoint: Callable[[str], None] = kill_when_asked,
        resolver: Resolver | None = None,
    ) -> None:
        self.name = name
        self._settings = settings
        self._store = store
        self._log: FilteringBoundLogger = log or structlog.get_logger()
        self._paths = Paths(settings.root)
        self._resolver = resolver or Resolver()
        self._addresses = AddressRecord(store, self._paths.addresses)
        self._addresses_due = asyncio.Event()
        self._recalled = asyncio.Event()
        self._wake = asyncio.Event()
        self._report_due = asyncio.Event()
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._mirror = Mirror(store, self._paths, self._wake.set, self._log)
        self._candidacy = Candidacy(
            store,
            self._paths,
            name,
            self._log,
            ended=self._tenure_ended,
            covered=self._tenure_covered,
            session_began=self._mirror.forget,
            gem_leads=self._mirror.led_by_the_gem,
        )
        self.tenure = self._candidacy.tenure
        self._keyring = settings.keyring()
        self._servers = ServerWatch(
            self._keyring, settings.limits, self._resolver, self._command_timeout, self._sampled, self._log
        )
        self._logins = LoginKeeper(self._keyring, self._servers.admins, name, self._log)
        self._waits_for = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._sequence = 0
        self._announced = ManagerReport(name)
        self._said = ""
        self._views = ViewBuilder(
            name,
            self._mirror,
            self._servers,
            self._log,
            rule=settings.rule,
            limits=settings.limits,
            policy=settings.policy,
            max_staleness=settings.max_staleness,
        )
        self._executor = Executor(
            store,
            self._paths,
            self._mirror,
            self.tenure,
            self._servers.admins,
            settings.policy,
            changed=self._servers.hurry,
            seen=self._servers.report,
            log=self._log,
            history_limit=settings.history_limit,
            failpoint=failpoint,
        )

    async def run(self) -> None:
        """Work until `stop`, or until cancelled. Both give up leadership at once, if the store can be reached.

        Raises ManagerFailed, which does the same, when a task has died.
        """
        try:
            self._store.subscribe(self._store_moved)
            self._mirror.start()
            async with asyncio.TaskGroup() as group:
                for node in self._settings.nodes:
                    self._servers.watch(node, partial(self._task, group))
                self._start(group, "campaign", self._campaign)
                self._start(group, "lookout for the gem", self._candidacy.look_for_gem)
                self._start(group, "address keeper", self._keep_addresses)
                self._start(group, "announcer", self._announce)
                self._start(group, "lease keeper", self._candidacy.prove)
                self._start(group, "executor", partial(self._act, group))
                if self._logins.is_needed:
                    self._start(group, "login keeper", self._logins.run)
                await self._stopping.wait()
                for task in self._tasks:
                    task.cancel()
                self._servers.cancel()
        except ExceptionGroup as died:
            raise died.exceptions[0] from None
        finally:
            try:
                self._mirror.stop()
                await self._executor.stop()
                await self._withdraw()
                await self._servers.close()
            finally:
                self._stopped.set()

    async def stop(self) -> None:
        """End `run` and wait for its end."""
        self._stopping.set()
        await self._stopped.wait()

    def _start(self, group: asyncio.TaskGroup, name: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        self._tasks.append(self._task(group, name, work))

    def _task(
        self, group: asyncio.TaskGroup, name: str, work: Callable[[], Coroutine[None, None, None]]
    ) -> asyncio.Task[None]:
        return group.create_task(self._essential(name, work))

    async def _essential(self, name: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Work that goes on until it is cancelled. If it ends in another way, the manager does, and says why."""
        died: BaseException | None = None
        try:
            await work()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            died = error  # of something that it waited for
        except Exception as error:
            died = error
        why = repr(died) if died else "it ended"
        self._log.error(
            "a task of the manager has died: the manager ends, to be started anew",
            manager=self.name,
            task=name,
            error=why,
            exc_info=died,
        )
        raise ManagerFailed(f"the {name} of the manager has died: {why}")

    def reload(self) -> None:
        """Read the password file again, and say which servers accept what it says."""
        self._logins.reload()

    async def _withdraw(self) -> None:
        await self._candidacy.give_up()
        with contextlib.suppress(StoreError):
            await self._store.withdraw(self._paths.manager(self.name))

    # Servers.

    def _watch_members(self, group: asyncio.TaskGroup) -> None:
        """The servers that this manager is configured with, those that the record names, and those of other managers,
        as far as they are known: a standby does not read their reports."""
        topology, reports = self._mirror.topology, self._mirror.reports.values()
        listed = topology.nodes if topology else frozenset[Node]()
        others = [] if self.tenure.state is not State.PRIMARY else [set(r.configured or ()) for r in reports]
        self._servers.follow(listed.union(self._settings.nodes, *others), partial(self._task, group))

    def _command_timeout(self) -> float:
        """Seconds. How long a session is, ZooKeeper says on connection: it may be less than was asked for."""
        return min(COMMAND_TIMEOUT, self._store.session_timeout / 4)

    def _sampled(self, node: Node, significant: bool) -> None:
        self._wake.set()
        self._views.sampled(node)
        report, topology = self._servers.report(node), self._mirror.topology
        if not significant or report is None:
            return
        if self._is_awaited(report):
            self._report_due.set()
        self._servers.log_condition(node, topology.epoch if topology else 0)

    def _is_awaited(self, report: NodeReport) -> bool:
        """Does somebody wait to hear of it? The primary manager counts who is up and who is down, and no more."""
        announced = next((said for said in self._announced.nodes if said.node == report.node), None)
        news = announced is None or announced.available != report.available
        return news and self.tenure.state is not State.PRIMARY

    def _own_report(self) -> ManagerReport:
        settings, rule = self._settings, self._settings.rule
        return ManagerReport(
            self.name,
            self._sequence,
            tuple(self._with_refusal(report) for report in self._servers.reports.values()),
            configured=settings.nodes,
            waits_for=self._waits_for,
            required=rule.required,
            strategy=rule.strategy.value,
        )

    def _with_refusal(self, report: NodeReport) -> NodeReport:
        """The report, and what the server refuses to do, as far as its condition does not say it."""
        if not report.available:
            return report
        shut_out = self._logins.refusal(report.node) if report.condition == "ok" else ""
        login = f"refuses new connections of the managers: {shut_out}" if shut_out else ""
        said = "; ".join(filter(None, (login, self._executor.refusal(report.node))))
        return replace(report, refusal=said) if said else report

    async def _announce(self) -> None:
        while True:
            self._report_due.clear()
            self._sequence += 1
            with contextlib.suppress(StoreError):
                self._announced = self._own_report()
                await self._store.announce(self._paths.manager(self.name), self._announced.encode())
            await wait_for(self._report_due, ANNOUNCE_INTERVAL)

    # Addresses of servers that have names.

    async def _keep_addresses(self) -> None:
        self._resolver.subscribe(lambda known: self._addresses_due.set())
        while True:
            with contextlib.suppress(StoreError):
                if not self._recalled.is_set():
                    self._recall(await self._addresses.load(time.time()))
                if self.tenure.state is State.PRIMARY:
                    await self._addresses.save(self._resolver.known, time.time())
            await wait_for(self._addresses_due, ADDRESSES if self._recalled.is_set() else RETRY)
            self._addresses_due.clear()

    def _recall(self, addresses: Mapping[str, Sequence[str]]) -> None:
        """The servers that are unresolved although managers have known their addresses are looked at again."""
        self._resolver.remember(addresses)
        self._servers.start_over(addresses)
        self._recalled.set()

    # Tenure.

    def _store_moved(self, state: StoreState) -> None:
        self._candidacy.store_moved(state)
        if state is StoreState.CONNECTED:
            self._report_due.set()
            self._addresses_due.set()
            self._views.reconnected()
        self._wake.set()
        self._log.info("store", state=state.value, manager=self.name)

    def _tenure_ended(self) -> None:
        self._executor.forget()
        self._waits_for = ""

    def _tenure_covered(self) -> None:
        self._mirror.spoil_all()  # what was read before this proof may be older than the tenure
        self._wake.set()

    async def _campaign(self) -> None:
        await self._recalled.wait()
        await self._servers.all_seen.wait()  # who has not looked at every server must not choose among them
        while True:
            await self._candidacy.take_seats()
            self._executor.forget()
            self._views.begin_tenure()
            self._servers.renew_command_timeout()
            self._mirror.attend()
            self._addresses_due.set()
            self._candidacy.begin()
            await self._candidacy.over()
            self._mirror.look_on()
            await self._candidacy.leave()

    # Acting.

    async def _act(self, group: asyncio.TaskGroup) -> None:
        while True:
            self._wake.clear()
            await wait_for(self._wake, await self._act_once(group))

    async def _act_once(self, group: asyncio.TaskGroup) -> float | None:
        """Do what is to be done; returns seconds after which to look again though nothing has changed."""
        try:
            while True:
                acts = self.tenure.covers(clock.now())
                await self._mirror.refresh(*(() if acts else self._needed()))
                self._watch_members(group)
                self._servers.excuse(self._mirror.proxies)
                if not acts or not self._mirror.readable or not self.tenure.covers(clock.now()):
                    return None
                await self._executor.complete_receipt()
                await self._executor.note_returns(self._servers.reports, time.time())
                self._executor.tend(self._servers.reports, time.monotonic())
                view = self._view()
                step = decide(view, self._settings.policy)
                self._waits_for = step.reason if isinstance(step, Wait) else ""
                if isinstance(step, Wait):
                    self._say(step.reason)
                    renewal = await self._executor.renew()
                    return renewal if step.until is None else min(renewal, max(0.0, step.until - view.now))
                if isinstance(step, Resign):
                    self._candidacy.end(step.reason)
                else:
                    await self._execute(step)
        except FenceLost:
            self._candidacy.end("another manager took over")
        except StoreConflict as error:
            self._log.warning("the record was changed by someone else: reading it again", error=str(error))
            return RETRY
        except StoreUnavailable:
            self._mirror.spoil_all()
            return RETRY if self._store.state is StoreState.CONNECTED else None
        except NoTenure:
            self._candidacy.doubt()
        except StoreError as error:
            self._mirror.spoil_all()
            self._log.error("the store did not do what was asked: trying again", error=str(error))
            return RETRY
        return None

    async def _execute(self, step: Step) -> None:
        await self._executor.execute(step)
        if isinstance(step, Remember):
            self._views.remembered()

    def _needed(self) -> tuple[str, ...]:
        """The records that a manager needs that does not act: which servers to watch, for a tenure begins with reading
        everything; and while a server is silent, what proxies say of it.

        Each manager comes to its own verdict, so each has to know of an excuse. Proxies speak after 0.3 s, the first
        verdict is due after `Limits.silence`: between the two there is time to read even thousands of records, and
        nobody reads or is told of any of them while all servers answer.
        """
        needed = (self._paths.nodes, *((self._paths.proxies,) if self._servers.any_is_silent else ()))
        if self.tenure.state not in (State.PRIMARY, State.SUSPENDED):
            self._mirror.look_on(*needed[1:])
        return needed

    def _view(self) -> View:
        topology = self._mirror.topology
        epoch = topology.epoch if topology else -1
        if epoch != self._executor.progress.epoch:
            self._executor.begin(epoch)
            self._servers.hurry_all()
        self._executor.look_at(self._mirror.proxies)
        return self._views.build(self._own_report(), self._executor.progress, self._candidacy.led_since)

    def _say(self, reason: str) -> None:
        """Once per reason: the same one comes with every look."""
        if reason and reason != self._said:
            topology = self._mirror.topology
            self._log.warning(reason, epoch=topology.epoch if topology else 0)
        self._said = reason
