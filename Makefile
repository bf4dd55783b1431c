# One command sets up a virtual environment in .venv and does the job: `make demo`, `make test`, `make check`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
ARGS ?=
export YOLO_AUTOINSTALL = false

.PHONY: demo test fast check bench clean

demo: $(VENV)/installed
	$(BIN)/yolo-lt demo $(ARGS)

test: $(VENV)/installed-test
	$(BIN)/python -m pytest $(ARGS)

fast: $(VENV)/installed-test
	$(BIN)/python -m pytest -q -m "not slow and not realdata" $(ARGS)

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m "not slow and not realdata" $(ARGS)

# all but the matrix of recipes, which takes days
bench: $(VENV)/installed-test
	for script in $(filter-out scripts/bench_accuracy.py, $(wildcard scripts/bench_*.py)); do $(BIN)/python $$script || exit 1; done

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

$(VENV)/installed-dev: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
