# Two commands, each from nothing but Python: `make demo` shows what spec-store does, `make test` checks it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_DB := demo-db

.PHONY: demo test lint clean

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt "pip>=25.1"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[demo]" --group dev
	touch $@

demo: $(BIN)/.installed
	rm -rf $(DEMO_DB)
	mkdir $(DEMO_DB)
	$(BIN)/spec-store demo --db $(DEMO_DB)
	$(BIN)/spec-store compare --db $(DEMO_DB) --table images --cols pixels,hog --key id
	$(BIN)/spec-store clusters --db $(DEMO_DB) --table images --by label
	$(BIN)/spec-store query --db $(DEMO_DB) --table images --select id,label,spec_pixels_hog_side,spec_pixels_hog_score \
		--where "spec_pixels_hog_cluster = 0 AND spec_pixels_hog_score > 0.8" --limit 10
	$(BIN)/spec-store align --db $(DEMO_DB) --table images --source pixels --target hog --key id --held-out 0.2
	$(BIN)/spec-store gate --db $(DEMO_DB) --table images --source pixels --target hog

lint: $(BIN)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) $(DEMO_DB) build dist
