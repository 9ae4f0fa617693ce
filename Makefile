# make train   prepare the sample corpus and pretrain a small model on it, to a checkpoint and a report
# make test    the tests, where a warning is an error; make test-slow the slow ones, where torch.compile and Ray warn
# make lint    the style and the types
# make docs    the documentation as a site, in strict mode (a broken link is an error)
# make test-gpu   on a machine with a GPU, ten minutes: its tests, losses in every precision, faults, speed
# make test-faults   every fault of the table as often as it says (an hour), written to benchmarks/faults.md
# make fuzz    half an hour of random damaged files for every reader, counted in benchmarks/faults.md
# make bench   the main table of benchmarks/speed.md: training speed beside transformers and the original XLM's loop
# make clean   remove .venv; data and runs stay
# All of them install what they need into .venv first.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest

# As many processes as there are GPUs (at most eight, and a number that quickstart's eight sub-batches can be shared by), one
# on a CPU.
NPROC ?= $(shell $(BIN)/python -c 'import torch; \
	print(max(n for n in (1, 2, 4, 8) if n <= max(torch.cuda.device_count(), 1)))')

.PHONY: train test test-slow test-faults fuzz test-gpu bench lint docs clean

train: $(VENV)/ready prepared/sample/dataset.json
	$(BIN)/torchrun --standalone --nproc-per-node=$(NPROC) train.py experiment=quickstart
	$(BIN)/python tools/report.py run=runs/quickstart
	$(BIN)/python tools/fill_mask.py model=runs/quickstart lang=de "Die <mask> schläft auf dem Sofa." \
		translation="The cat is sleeping on the sofa." translation_lang=en

prepared/sample/dataset.json: $(VENV)/ready $(wildcard data/sample/*.de data/sample/*.en) configs/corpus/sample.yaml
	$(BIN)/python tools/prepare.py corpus=sample overwrite=true

test: $(VENV)/ready
	$(PYTEST) --numprocesses=2 --dist=loadfile

test-slow: $(VENV)/ready
	$(PYTEST) -m slow -W default

test-faults: $(VENV)/ready
	$(PYTEST) -m faults --fault-table=benchmarks/faults.md tests/faults

fuzz: $(VENV)/ready
	$(PYTEST) --hypothesis-profile=fuzz --fuzz-minutes=30 --fuzz-table=benchmarks/faults.md tests/fuzz

test-gpu: $(VENV)/ready
	$(BIN)/python -m benchmarks.gpu_check

bench: $(VENV)/ready
	$(BIN)/python -m benchmarks.speed

lint: $(VENV)/ready-to-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/ready-for-docs
	$(BIN)/zensical build --clean --strict

# fastBPE's sdist on PyPI holds C++ generated for old Pythons: with Cython in the environment, and only without build
# isolation, it is generated again.
$(VENV)/ready: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: Python 3.10 or later is needed, $(PYTHON) is older or missing; try make PYTHON=python3.11"; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || \
		{ echo "error: no C++ compiler found, fastBPE needs one; on Debian: apt-get install g++"; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; \
		sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || \
		{ echo "error: Python.h not found, fastBPE needs it; on Debian: apt-get install python3-dev"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) Cython setuptools wheel
	$(PIP) torch
	$(PIP) --no-build-isolation fastBPE
	$(PIP) --no-build-isolation --editable '.[test]'
	@touch $@

$(VENV)/ready-to-lint: $(VENV)/ready
	$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@

$(VENV)/ready-for-docs: $(VENV)/ready
	$(PIP) zensical
	@touch $@

clean:
	rm -rf $(VENV)
