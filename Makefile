# Commands, each from nothing but Python: `make demo` shows what spec-store does, `make test` checks it, `make bench`
# measures it beside this machine's limits and other means, in some minutes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FLOOR := .venv-floor
DEMO_DB := demo-db
BENCH_DB := bench-db
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --constraint

# The oldest Python that can make an environment, in $PATH or by pyenv, whose commands may be there and not work.
PYENV_ROOT ?= $(HOME)/.pyenv
FLOOR_PYTHON ?= $(shell for minor in 10 11 12 13; do \
	for python in python3.$$minor $(PYENV_ROOT)/versions/3.$$minor.*/bin/python; do \
	if $$python -c "import ensurepip" 2>/dev/null; then echo $$python; exit; fi; done; done; echo $(PYTHON))

# Each kind of store from end to end, column files and commits, and the mathematics.
FLOOR_TESTS := tests/test_story.py tests/connectors/test_conformance.py tests/connectors/test_lancedb_annotate.py \
	tests/connectors/test_lancedb_recovery.py tests/stores/test_vectors.py tests/spectral/test_covariance_laws.py \
	tests/alignment/test_maps.py

.PHONY: demo test test-floor lint bench clean

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) constraints.txt "pip>=25.1"
	$(BIN)/python $(PIP_INSTALL) constraints.txt --editable ".[demo,report]" --group dev
	touch $@

$(FLOOR)/.installed: pyproject.toml constraints-floor.txt
	rm -rf $(FLOOR)
	$(FLOOR_PYTHON) -m venv $(FLOOR)
	$(FLOOR)/bin/python $(PIP_INSTALL) constraints-floor.txt --editable ".[demo,onnx]" hypothesis pytest pytest-xdist
	touch $@

demo: $(BIN)/.installed
	rm -rf $(DEMO_DB)
	mkdir $(DEMO_DB)
	$(BIN)/spec-store demo --db $(DEMO_DB)
	$(BIN)/spec-store compare --db $(DEMO_DB) --table images --cols pixels,hog --key id
	$(BIN)/spec-store query --db $(DEMO_DB) --table images --select id,label,spec_pixels_hog_side,spec_pixels_hog_score \
		--where "spec_pixels_hog_cluster = 1" --order-by "spec_pixels_hog_score desc" --limit 5
	$(BIN)/spec-store report --db $(DEMO_DB) --table images -o $(DEMO_DB)/report.html
	$(BIN)/spec-store align --db $(DEMO_DB) --table images --source pixels --target hog --key id --held-out 0.2
	$(BIN)/spec-store gate --db $(DEMO_DB) --table images --source pixels --target hog --fail-under 0.5

lint: $(BIN)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint test-floor
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-floor: $(FLOOR)/.installed
	@$(FLOOR)/bin/python -c "import sys; print('The oldest dependencies, with Python', sys.version.split()[0])"
	$(FLOOR)/bin/python -m pytest -q -n 2 $(FLOOR_TESTS)

# What is compared with is optional: where it can't be installed its rows are missing.
bench: $(BIN)/.installed
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	$(BIN)/python benchmarks/bench.py --db $(BENCH_DB) --json bench.json --plot bench.svg

clean:
	rm -rf $(VENV) $(FLOOR) $(DEMO_DB) $(BENCH_DB) build dist
