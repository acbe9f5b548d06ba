"""Workers of one proxy, each a playbook, which ask each other without sockets.

here, there = join(2)
here.client().says("CLIENT", "LIST")
here.server("m:1").hears("CLIENT", "LIST", "ID", NOBODY).answers(EMPTY)
here.peers.hear()
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from rfproxy.builtin.worker_queries import answer
from rfproxy.core.peers import Answers
from tests.support.playbook import Playbook


class Worker(Playbook):
    """One worker. Its questions are answered when the test says so."""

    def __init__(self, process: int) -> None:
        super().__init__(process=process)
        self.process = process
        self.frozen = False
        """Whether it answers nothing."""
        self.peers = Port(self)
        self.router.peers = self.peers


class Port:
    """What one worker asks the others."""

    def __init__(self, worker: Worker) -> None:
        self.others: list[Worker] = []
        self.asked: list[list[bytes]] = []
        """The questions that have not been answered."""
        self.garbled: list[bytes] | None = None
        """What all others answer, when that is not what they should."""
        self._worker = worker
        self._waiting: list[tuple[list[bytes], list[Worker], Callable[[Answers, float], None]]] = []

    def ask(
        self, question: list[bytes], owners: Collection[int] | None, on_answers: Callable[[Answers, float], None]
    ) -> None:
        """Keep a question."""
        self.asked.append(question)
        asked = [one for one in self.others if owners is None or one.process in owners]
        self._waiting.append((question, asked, on_answers))

    def hear(self) -> None:
        """Everyone answers all that was asked."""
        waiting, self._waiting, self.asked = self._waiting, [], []
        for question, asked, on_answers in waiting:
            answers = [self._answer(one, question) for one in asked if not one.frozen]
            for one in asked:
                one.settle()
            on_answers([words for words in answers if words is not None], self._worker.time)
        self._worker.settle()

    def _answer(self, worker: Worker, question: list[bytes]) -> list[bytes] | None:
        return answer(worker.router, question, worker.time) if self.garbled is None else self.garbled


def join(count: int) -> list[Worker]:
    """So many workers; all of them know a master, m:1."""
    workers = [Worker(process) for process in range(1, count + 1)]
    for worker in workers:
        worker.peers.others = [other for other in workers if other is not worker]
        worker.topology(1, master="m:1")
    return workers


def talk(workers: Iterable[Worker]) -> None:
    """Everyone answers all that is asked, and all that is asked because of that."""
    while asking := [worker for worker in workers if worker.peers.asked]:
        for worker in asking:
            worker.peers.hear()
