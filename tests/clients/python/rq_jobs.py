"""The roles `work` and `enqueue` of tests/clients/test_job_queues.py, played by rq."""

from __future__ import annotations

import json
import select
import sys

import redis
from rq import Queue, SimpleWorker


def say(line: str) -> None:
    print(line, flush=True)


def job(number: int) -> None:
    say(f"message {number}")


def work(client: redis.Redis, name: str) -> None:
    SimpleWorker([name], connection=client).work()


def enqueue(client: redis.Redis, name: str) -> None:
    queue = Queue(name, connection=client)
    acknowledged: list[int] = []
    errors: list[str] = []

    def one_more() -> None:
        number = len(acknowledged) + len(errors)
        try:
            queue.enqueue("tests.clients.python.rq_jobs.job", number)
            acknowledged.append(number)
        except redis.ResponseError as error:
            errors.append(str(error))

    for _ in range(10):
        one_more()
    say("ready")
    while not select.select([sys.stdin], [], [], 0.005)[0]:
        one_more()
    for _ in range(10):
        one_more()
    say(json.dumps({"acknowledged": acknowledged, "errors": errors}))


if __name__ == "__main__":
    port, role, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    {"work": work, "enqueue": enqueue}[role](redis.Redis(port=port, username="app", password="secret"), name)
