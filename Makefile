# make train   prepare the sample corpus and pretrain a small model on it, to a checkpoint and a report
# make wheel   build the wheel and the sdist, into dist
# make test    the tests, where a warning is an error; make test-slow the slow ones, where torch.compile and Ray warn
# make lint    the style and the types
# make docs    the documentation as a site, in strict mode (a broken link is an error)
# make test-gpu   on a machine with a GPU, ten minutes: its tests, losses in every precision, faults, speed
# make test-faults   every fault of the table as often as it says (an hour), written to benchmarks/faults.md
# make advisories   known security advisories of everything that is installed; needs api.osv.dev or a mirror of it
# make lock    write requirements/*.txt anew from setup.cfg, with the versions they hold; UPGRADE=1 takes the newest
# make lock-torch-cpu   requirements/torch-cpu.txt, after a new version of torch; needs download.pytorch.org
# make fuzz    half an hour of random damaged files for every reader, counted in benchmarks/faults.md
# make bench   speed beside what one would use instead, in one table; half an hour
# make clean   remove .venv; data and runs stay
# All of them install what they need into .venv first: only files whose hashes stand in requirements/. TORCH=cpu takes
# the build of torch without CUDA, TORCH=cuda the one of PyPI; if not given, cpu where the index that pip is set to has it.
# TORCH=none keeps the torch that is in .venv already.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
# Without build isolation: pip would fetch what a build needs without checking hashes.
INSTALL := $(PIP) install --quiet --disable-pip-version-check --no-build-isolation
LOCKED := $(INSTALL) --require-hashes
CPU_TORCH = $(shell sed -n 's/^torch==\([^ ]*\).*/\1/p' requirements/torch-cpu.txt)
TORCH ?= $(if $(findstring $(CPU_TORCH),$(shell $(PIP) index versions torch 2>/dev/null)),cpu,cuda)
LOCK = $(BIN)/uv pip compile --quiet --python=$(BIN)/python --universal --python-version=3.10 --generate-hashes \
	--no-build-isolation --custom-compile-command='make lock' $(if $(UPGRADE),--upgrade)
PYTEST := $(BIN)/python -m pytest

# 1, 2 or 4: a batch of the quickstart has four sub-batches.
NPROC ?= $(shell $(BIN)/python -c 'from xlmtrain.commands.demo import training_processes; print(training_processes())')

.PHONY: train wheel test test-slow test-faults fuzz test-gpu bench lint docs advisories lock lock-torch-cpu clean

train: $(VENV)/ready prepared/sample/dataset.json
	$(BIN)/torchrun --standalone --nproc-per-node=$(NPROC) -m xlmtrain train experiment=quickstart
	$(BIN)/xlmtrain report run=runs/quickstart
	$(BIN)/xlmtrain fill-mask model=runs/quickstart lang=de "Die <mask> schläft auf dem Sofa." \
		translation="The cat is sleeping on the sofa." translation_lang=en

prepared/sample/dataset.json: $(VENV)/ready $(wildcard data/sample/*.de data/sample/*.en) configs/corpus/sample.yaml
	$(BIN)/xlmtrain prepare corpus=sample overwrite=true

# The wheel is built from the sdist, so that neither lacks a file.
wheel: $(VENV)/ready
	rm -rf build/lib
	$(BIN)/python -c 'from setuptools import build_meta; build_meta.build_sdist("dist")'
	$(PIP) wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir=dist dist/*.tar.gz

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
	$(BIN)/python -m benchmarks.peers

lint: $(VENV)/ready-to-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/ready-to-lint
	$(BIN)/zensical build --clean --strict

# torch's CPU build is the same source as PyPI's, whose version the advisories name.
advisories: $(VENV)/ready-to-lint
	@mkdir -p build
	@$(BIN)/pip-audit --disable-pip --vulnerability-service=osv --desc=off --aliases=on --progress-spinner=off \
		$(patsubst %,--requirement=%,$(filter-out %-cpu.txt,$(wildcard requirements/*.txt))) >build/advisories.txt 2>&1; \
	code=$$?; if test $$code = 0 || grep -q '^Found ' build/advisories.txt; then cat build/advisories.txt; exit $$code; fi; \
	tail -n 1 build/advisories.txt; \
	echo "error: nothing was checked, no answer from api.osv.dev; PIP_AUDIT_OSV_URL may name a mirror of it"; exit 3

# requirements/torch-cpu.txt is written only where download.pytorch.org is reached, when torch has another version.
# Its CUDA libraries are left out of test.txt.
lock: $(VENV)/ready-to-lint
	echo torch | $(LOCK) -o requirements/torch-cuda.txt -
	printf '%s\n' cuda-bindings cuda-toolkit triton nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 \
		nvidia-nvshmem-cu13 | $(LOCK) -o requirements/test.txt -c requirements/torch-cuda.txt --no-emit-package=torch \
		--excludes=/dev/stdin --extra=test --extra=fastbpe setup.cfg
	printf '%s\n' Cython setuptools wheel | $(LOCK) -o requirements/build.txt -c requirements/test.txt -
	printf '%s\n' ruff mypy zensical pip-audit uv | $(LOCK) -o requirements/tools.txt -c requirements/test.txt -

lock-torch-cpu: $(VENV)/ready-to-lint
	sed -n 's/^torch==[0-9.]*/&+cpu/p' requirements/torch-cuda.txt | tr -d ' \\' | $(LOCK) --no-deps --no-annotate \
		--default-index=https://download.pytorch.org/whl/cpu -o requirements/torch-cpu.txt -

$(VENV)/ready-to-build: requirements/build.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: Python 3.10 or later is needed, $(PYTHON) is older or missing; try make PYTHON=python3.11"; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || \
		{ echo "error: no C++ compiler found, fastBPE needs one; on Debian: apt-get install g++"; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; \
		sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || \
		{ echo "error: Python.h not found, fastBPE needs it; on Debian: apt-get install python3-dev"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(LOCKED) -r requirements/build.txt
	@touch $@

# fastBPE's sdist on PyPI holds C++ generated for old Pythons: with Cython in the environment, and only without build
# isolation, it is generated again.
$(VENV)/ready: $(VENV)/ready-to-build setup.py setup.cfg pyproject.toml requirements/test.txt $(wildcard requirements/torch-*.txt)
	$(LOCKED) $(if $(filter-out none,$(TORCH)),-r requirements/torch-$(TORCH).txt) -r requirements/test.txt
	$(INSTALL) --no-deps --editable .
	@touch $@

$(VENV)/ready-to-lint: $(VENV)/ready requirements/tools.txt
	$(LOCKED) -r requirements/tools.txt
	@touch $@

clean:
	rm -rf $(VENV)
