# make demo   watch RATE learn T-Maze on a CPU: data, training, evaluation, a picture
# make test   every test
# Both make their own virtual environment, install the package into it, and are safe to repeat.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
EXTRAS ?= dev
RUN ?= runs/demo
DEMO ?=
BIN = $(VENV)/bin
NATIVE = pyproject.toml setup.py CMakeLists.txt $(shell find csrc -type f)

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	rm -rf $(RUN)
	$(BIN)/rate train tmaze --run $(RUN) $(DEMO)
	$(BIN)/rate eval $(RUN) --corridor 1 4 9 14 19 24 48 120 240 480 1000 --episodes 100

# Tests run in as many processes as there are cores, each with one thread; then, unless some are named, those that go
# through the Triton kernels' source run again in Triton's interpreter.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder --durations=15
test: $(VENV)/.installed-dev
	$(PYTEST) $(TESTS)
	$(if $(TESTS),,TRITON_INTERPRET=1 RATE_BACKEND=triton $(PYTEST))

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch goes first and by its version: left to the others' requirements, pip may choose a build with gigabytes of CUDA.
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --quiet
$(VENV)/.installed: $(VENV)/bin/python $(NATIVE)
	$(INSTALL) "$(TORCH)"
	$(INSTALL) --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python $(NATIVE)
	$(INSTALL) "$(TORCH)"
	$(INSTALL) --editable ".[$(EXTRAS)]"
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) build *.egg-info rate_kernels/_native*.so rate_kernels/_build.json
