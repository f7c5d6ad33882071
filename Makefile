# One command each does all the set-up from a plain checkout: `make demo` and `make test`; `make setup` does nothing else.
# PYTHON=python3.12 make test  takes another interpreter.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 8
BIN := $(VENV)/bin
QUIET = $(if $(filter tests%,$(ARGS)),,$(shell grep -rl --include=*.py pytest.mark.quiet tests))
ROOMS := values store cluster observers futures calls jobs work settings operating embedders queue search money \
	integrations metrics cli dashboard proof

.PHONY: demo example-flask example-django example-fastapi screenshots setup test test-all check lint coverage docs bench dist clean

demo: $(VENV)/.demo
	$(BIN)/python -m embedqueue demo $(ARGS)

# Notes that are found by meaning, on http://127.0.0.1:5000, :8000 and :8080; each with its dashboard.
example-flask: $(VENV)/.examples
	$(BIN)/python -m examples.flask_notes $(ARGS)

example-django: $(VENV)/.examples
	$(BIN)/python -m examples.django_notes $(ARGS)

example-fastapi: $(VENV)/.examples
	$(BIN)/python -m examples.fastapi_notes $(ARGS)

# The pictures of the docs; without a Chromium on this machine, a sentence that says so.
screenshots: $(VENV)/.dev
	$(BIN)/python -m tests.dashboard.screenshots $(ARGS)

# What tests and checks need.
setup: $(VENV)/.compiled

# The suite waits about as much as it computes: several processes a core, each with a Redis of its own, and all tests
# compiled once before them. What measures time comes last, alone. ARGS may leave nothing of either, which pytest answers
# with 5.
test: export PYTHONDONTWRITEBYTECODE = # compiled once, and not by each of some hundred processes
test: export OPENBLAS_NUM_THREADS = 1 # each process would have as many as there are cores, which spin while they wait
test: $(VENV)/.compiled
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations 10 -m "not quiet and not types" $(ARGS) || test $$? = 5
	$(BIN)/python -m pytest -m quiet $(QUIET) $(ARGS) || test $$? = 5

# The one gate: tests, lint, format, types (ours, and what users write), import layers.
check: test lint

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m types tests/typing
	$(BIN)/lint-imports

# Every branch of the core, or it fails. test_interrupts_at_any_instruction traces instructions itself, which a tracer
# of lines would keep it from; of tests/processes, only what ends and what forks reaches something that nothing else does.
# test_torture.py takes long and reaches nothing more.
coverage: $(VENV)/.dev
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest $(addprefix tests/,$(ROOMS)) \
		tests/processes/test_exit.py tests/processes/test_fork.py --ignore tests/proof/test_torture.py \
		--deselect tests/futures/test_intake.py::test_interrupts_at_any_instruction $(ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

# The pages as one site, in build/site: strict, with every link checked, and without a network.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The comparison with others; ARGS="--quick" is small.
bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(ARGS)

# What is uploaded for a release: a wheel, and a source distribution that holds the tests and the pages.
dist: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build --quiet
	$(BIN)/python -m twine check --strict dist/*

# The tests on every supported Python that this machine has.
test-all:
	@for python in $$(.ci/pythons); do \
		venv=.venv-$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		$(MAKE) test PYTHON=$$python VENV=$$venv || exit 1; \
	done

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

# One stamp for each of the dependency groups.
$(VENV)/.%: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python .ci/group $* > $(VENV)/$*.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --requirement $(VENV)/$*.txt
	@touch $@

# All tests once, as pytest compiles them. Later changes are few, and compiled by whoever comes first.
$(VENV)/.compiled: export PYTHONDONTWRITEBYTECODE =
$(VENV)/.compiled: $(VENV)/.dev
	$(BIN)/python -m pytest --collect-only -qq >$@.txt || { cat $@.txt; false; }
	@touch $@

clean:
	rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
