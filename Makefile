# make help       this list
# make run        three Redis servers and a proxy on 127.0.0.1:6380 (or PORT=...); Ctrl-C stops everything
# make demo       a ZooKeeper ensemble, managers and proxies, clients, a killed master and a planned switchover
# make lint       style, types, and which package may import which
# make test-fast  the tests of the pure packages, in less than a minute: for the time of writing
# make test       everything that is checked before a change is accepted
# make matrix     the system tests with each version of Redis and Valkey that runs here, and in mixed groups
# make faults     every fault that has to be survived, on real processes; prints a table of what became of them
# make soak       20,000 connections that come and vanish in all manners: what memory and descriptors do
# make bench      beside twemproxy, HAProxy and no proxy: CPU time per command, throughput, latency; which targets hold
# make clean      remove all that was set up and built
#
# Each sets up what it needs first: a virtual environment, and what is missing of the system from Debian.

PORT = 6380
BIN = .venv/bin
SETUP = pyproject.toml deploy/setup.sh deploy/servers.py tests/clients/node/package-lock.json

COMPILED = $(CURDIR)/build/compiled
CORE = $(COMPILED)/.ready

.PHONY: help setup run lint test-fast test test-compiled matrix faults soak bench demo clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: .venv/.ready

run: .venv/.ready
	@exec $(BIN)/python -m deploy.run --port $(PORT)

lint: .venv/.ready-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

PURE = $(addprefix tests/unit/rfproxy/, builtin core health maintenance pinned routing semantics session upstream) \
	$(addprefix tests/unit/rfmanager/, decision evidence operator/test_snapshot.py operator/test_doctor.py) \
	$(addprefix tests/unit/rfprotocol/, settings topology)

test-fast: .venv/.ready-tests
	$(BIN)/pytest $(PURE)

test: lint
	$(BIN)/pytest
	@$(MAKE) --no-print-directory test-compiled

# The units once more, as the package has them where there is a compiler.
test-compiled: $(CORE)
	PYTHONPATH=$(COMPILED) $(BIN)/python -c 'from rfprotocol.resp.fast_path import COMPILED; assert COMPILED'
	PYTHONPATH=$(COMPILED) $(BIN)/pytest tests/unit/rfprotocol tests/unit/rfproxy tests/interleavings

faults: .venv/.ready-tests
	@$(BIN)/python -m tests.scenarios.faults

matrix: .venv/.ready-tests
	@exec $(BIN)/python -m tests.matrix

soak: .venv/.ready
	@exec $(BIN)/python -m bench.soak

bench: $(CORE)
	@PYTHONPATH=$(COMPILED) exec $(BIN)/python -m bench.proxies

demo: .venv/.ready-tests
	@exec $(BIN)/python -m deploy.demo

clean:
	rm -rf tests/clients/node/node_modules
	rm -rf .venv .servers build *.egg-info .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.ready: $(SETUP)
	@sh deploy/setup.sh

.venv/.ready-tests: $(SETUP)
	@sh deploy/setup.sh --tests

# What is installed in .venv is the checkout itself, interpreted. Here it is as `pip install .` makes it.
$(CORE): .venv/.ready-tests setup.py pyproject.toml $(shell find protocol/rfprotocol proxy/rfproxy manager/rfmanager -name '*.py' -o -name '*.json')
	rm -rf build
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --target $(COMPILED) .
	@touch $@
