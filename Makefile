# make run   three Redis servers and a proxy on 127.0.0.1:6380 (or PORT=...); Ctrl-C stops everything
# make test  everything that is checked before a change is accepted
# make soak  20,000 connections that come and vanish in all manners: what memory and descriptors do
# make faults  every fault that has to be survived, on real processes; prints a table of what became of them
# make demo  a ZooKeeper ensemble, managers and proxies, clients, a killed master and a planned switchover
#
# Each sets up what it needs first: a virtual environment, and what is missing of the system from Debian.

PORT = 6380
BIN = .venv/bin
SETUP = pyproject.toml deploy/setup.sh tests/clients/node/package-lock.json

.PHONY: setup run test faults soak demo clean

setup: .venv/.ready

run: .venv/.ready
	@exec $(BIN)/python -m deploy.run --port $(PORT)

test: .venv/.ready-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

faults: .venv/.ready-tests
	@$(BIN)/python -m tests.scenarios.faults

soak: .venv/.ready
	@exec $(BIN)/python -m bench.soak

demo: .venv/.ready-tests
	@exec $(BIN)/python -m deploy.demo

clean:
	rm -rf tests/clients/node/node_modules
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.ready: $(SETUP)
	@sh deploy/setup.sh

.venv/.ready-tests: $(SETUP)
	@sh deploy/setup.sh --tests
