# Every target does its own set-up: `make demo` and `make test` work on a fresh clone of a bare Debian machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test test-htcondor test-slurm programs lint clean

install: $(STAMP)

# oracles of the tests pin libraries that they do not need here: installed without their pins
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "advtag needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "cannot make a virtual environment: install it with 'apt-get install python3-venv'" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[simulation,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps torchattacks foolbox eagerpy adversarial-robustness-toolbox
	touch $(STAMP)

# only the demo's own folder is deleted, and only here
demo: $(STAMP)
	rm -rf demo-output
	$(BIN)/advtag demo --output demo-output --workers 2

test: lint programs
	$(BIN)/python -m pytest -n 2 --dist loadscope

# the server whose files the tests read through root:// URLs, and the browser in which they open the report
programs:
	sh scripts/install_debian.sh xrootd xrootd-server
	sh scripts/install_debian.sh chromium chromium

# a real pool on loopback, from Debian's packages, without a change to the system
test-htcondor: $(STAMP)
	$(BIN)/python scripts/condor_pool.py install .condor-pool
	$(BIN)/python -m pytest -m htcondor

# likewise a real Slurm
test-slurm: $(STAMP)
	$(BIN)/python scripts/slurm_pool.py install .slurm-pool
	$(BIN)/python -m pytest -m slurm

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo-output build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
