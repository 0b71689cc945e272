# make demo: install and run the main job on what the package carries. make test: lint, types, import rules, tests.
# make docs: the pages as a site, in site/. make cli-page: the shell's help into its page.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test lint types imports pytest sweep fuzz docs cli-page clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/documented: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/penjing run examples/digits.yaml --out runs/digits --reference random --reference scratch

test: lint types imports pytest

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/tested
	$(BIN)/mypy

imports: $(VENV)/tested
	$(BIN)/lint-imports

pytest: $(VENV)/tested
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

docs: $(VENV)/documented
	$(BIN)/zensical build --clean --strict

cli-page: $(VENV)/installed
	sed -i '/^<!-- From here on/q' docs/cli.md
	$(BIN)/typer penjing.cli utils docs --name penjing | sed -n '/^## /,$$p' >> docs/cli.md

sweep: $(VENV)/tested
	$(BIN)/python benchmarks/proof_sweep.py --random 300 --onnx --out runs/proof_sweep.json

fuzz: $(VENV)/tested
	nice $(BIN)/python benchmarks/fuzz.py --minutes 60 --out runs/fuzz.json

clean:
	rm -rf $(VENV) runs site
