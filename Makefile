# Two commands, each sufficient on its own on a machine with Python 3.11 or newer and pip:
#
#   make demo   train a small CNN on handwritten digits that four processes augment (examples/digits.py)
#   make test   lint, types and all tests but the slow ones
#
#   make slow       the slow ones: trainings beside Keras' own, TensorFlow in many processes, clusters of several nodes
#   make backends   install JAX and torch there too (torch: some 200 MB, or gigabytes of CUDA's libraries where the index
#                   has no build for the CPU), so that `make slow` tests Keras' other backends, which it skips otherwise
#   make chaos      20 epochs of which every batch is hashed, while a producer is killed every second; and tests that take
#                   minutes, of which `make test` has a short form; as root also hosts that are killed and cut off
#   make cluster-demo   as root: four hosts on this machine, of which one is killed in mid-epoch (examples/cluster_demo.py)
#   make bench      every benchmark, beside its peers; figures and charts in benchmarks/, the targets at the end. Wants a
#                   machine that does nothing else, for twenty minutes
#
# All first make a virtual environment in .venv with the versions in constraints.txt, unless one is there and up to date.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.bench-installed
# Each has a Ray of its own; a file's tests stay together. What measures time runs after them, alone.
TEST_PROCESSES ?= 2
SPREAD := --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
BENCHMARKS := transport frame_cost fit epoch_boundary scaling startup memory targets

.PHONY: demo cluster-demo test slow backends chaos bench lint types pytest clean help

help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

# TensorFlow reports at length what the machine has not got; level 2 leaves its errors.
demo: $(INSTALLED)
	TF_CPP_MIN_LOG_LEVEL=2 $(BIN)/python examples/digits.py

cluster-demo: $(INSTALLED)
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python examples/cluster_demo.py

chaos: $(INSTALLED)
	$(BIN)/python -m rayfeed.testing.chaos
	TF_CPP_MIN_LOG_LEVEL=2 $(BIN)/python -m pytest -m long

# One after the other; the first that fails ends it.
bench: export TF_CPP_MIN_LOG_LEVEL = 2
bench: $(BENCH_INSTALLED)
	set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python examples/benchmarks/$$name.py; done

test: lint types pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# pyright's wrapper would ask the network whether it is the newest.
types: export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1
types: $(INSTALLED)
	$(BIN)/pyright

pytest: export TF_CPP_MIN_LOG_LEVEL = 2
pytest: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow and not long" --ignore tests/speed $(SPREAD)
	$(BIN)/python -m pytest tests/speed

slow: export TF_CPP_MIN_LOG_LEVEL = 2
slow: $(INSTALLED)
	$(BIN)/python -m pytest -m "slow and not long" $(SPREAD)

# Debian's python3 has ensurepip only where python3-venv is installed; without it, the machine's own pip begins the
# environment. pip itself is renewed first, since --group is younger than the pip of most machines; and what builds rayfeed
# is installed rather than fetched for the build, so that it is pinned too.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { \
	    $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install pip; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip hatchling editables
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation \
	    --editable '.[tensorflow,examples]' --group dev
	touch $@

backends: $(INSTALLED)-backends

$(INSTALLED)-backends: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group backends
	touch $@

$(BENCH_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[bench]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist benchmarks digits.png
	find rayfeed tests examples -name __pycache__ -type d -prune -exec rm -rf {} +
