# A new machine needs nothing but Python 3.11 or newer and one of these:
#   make demo   convert a small synthetic checkpoint both ways and show it (a minute, small downloads)
#   make test   run the tests (downloads torch and transformers)

PYTHON ?= python3
BIN := .venv/bin
BIN4 := .venv-4/bin
OLDEST := .venv-oldest/bin
DEMO := .venv-demo/bin
ENGINES := .venv-engines/bin
TRAINERS := .venv-trainers/bin
CLUSTER := .venv-cluster/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
IN_PARALLEL := --numprocesses auto --dist worksteal
COVERED := tests/reporting tests/mapping tests/planning tests/metadata tests/convert/companions tests/pages tests/test_strict_json.py tests/checkpoint/test_random_matrix.py
PURE := internvl_bridge/reporting/*,internvl_bridge/mapping/*,internvl_bridge/planning/*,internvl_bridge/metadata/*,internvl_bridge/strict_json.py,internvl_bridge/pages/*,internvl_bridge/checkpoint/random_matrix.py

.PHONY: demo test test-covered coverage test-exhaustive test-matrix test-engines test-trainers test-cluster test-browser test-oldest release-check lint types format docs tables gallery evidence benchmark mutants clean python

demo: .venv-demo/ready
	@$(DEMO)/python examples/demo.py

test: .venv/ready
	@echo "Running all tests: five to six minutes on two cores."
	$(BIN)/python -m pytest $(IN_PARALLEL)

# The same tests; those of the pure rooms must cover every line and branch of them. This is what .ci/run does.
test-covered: .venv/ready
	$(BIN)/python -m pytest $(IN_PARALLEL) $(COVERED) --cov=internvl_bridge --cov-report=
	$(BIN)/coverage report --include='$(PURE)' --skip-covered --fail-under=100
	$(BIN)/python -m pytest $(IN_PARALLEL) $(addprefix --ignore=,$(COVERED))

# Which lines of the whole package no test runs: slower by half, as tracing is.
coverage: .venv/ready
	$(BIN)/python -m pytest $(IN_PARALLEL) --cov=internvl_bridge --cov-report=
	$(BIN)/coverage report --skip-covered

# Every combination of parameters, every system call that fails, every moment of being killed.
test-exhaustive: .venv/ready
	@echo "Running all cases of all tests: about ten minutes on two cores."
	$(BIN)/python -m pytest $(IN_PARALLEL) --exhaustive

# The same models in transformers 4.57, the 4.x that people still run.
test-matrix: .venv-4/ready
	$(BIN4)/python -m pytest $(IN_PARALLEL) tests/end_to_end/test_parity.py tests/end_to_end/test_loaded_by_transformers.py tests/end_to_end/test_spellings_on_disk.py tests/end_to_end/test_adapters_in_peft.py tests/end_to_end/test_merging_in_peft.py tests/in_memory/test_loading.py tests/in_memory/test_load_check.py

# What serving engines make of outputs, by their own code. Not part of "make test": it downloads what they are.
test-engines: .venv-engines/ready
	$(ENGINES)/python -m pytest -W default engines

# What trainers save after one step. Not part of "make test": it installs the trainers.
test-trainers: .venv-trainers/ready
	PYTHONPATH=trainers $(TRAINERS)/python -m pytest -W default trainers

# Several nodes, one of which dies: Ray, Dask and MPI on this machine. Not part of "make test": it installs them.
test-cluster: .venv-cluster/ready
	PYTHONPATH=cluster $(CLUSTER)/python -m pytest -W default cluster

# Reports in a real browser. Not part of "make test": it needs a Chromium, for instance that of "apt install chromium".
test-browser: .venv/ready
	@$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --group browser
	$(BIN)/python -m pytest browser

# The lowest versions of the dependencies that pyproject.toml allows. GPT-OSS needs transformers 4.55.
test-oldest: .venv-oldest/ready
	$(OLDEST)/python -m pytest $(IN_PARALLEL) -W default tests/cli tests/pages tests/verification tests/planning tests/end_to_end/test_round_trip.py tests/in_memory/test_load_check.py -k "not gptoss"

# The package as an index gets it: built, checked, installed into clean environments, and tried there.
release-check: .venv/ready
	@$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --group release
	$(BIN)/python release/check.py

lint: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: .venv/ready
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The documentation as a site, in docs/_build/html.
docs: .venv/ready
	@rm -rf docs/_build
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs docs/_build/html

# The tables in the documentation that the package's own data make.
tables: .venv/ready
	$(BIN)/python docs/tables.py

# The reports in docs/gallery, from the stored checkpoints of the tests and from a fine-tune that is made up.
gallery: .venv/ready
	$(BIN)/python docs/gallery.py

# The cards in docs/evidence, from the stored checkpoints of the tests: half a minute.
evidence: .venv/ready
	$(BIN)/python docs/evidence.py

benchmark: .venv/ready
	$(BIN)/python benchmarks/convert.py
	$(BIN)/python benchmarks/start.py

# Small changes of the code of one room, each of which the room's own tests should notice: make mutants ROOM=mapping
mutants: .venv/ready
	@$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --group mutants
	$(BIN)/python mutants/run.py $(ROOM) --most $(or $(MOST),150)

clean:
	rm -rf .venv .venv-4 .venv-cluster .venv-demo .venv-engines .venv-oldest .venv-trainers .mutants demo-output dist docs/_build

python:
	@$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'Python 3.11 or newer is needed, and $(PYTHON) is {}.{}: name another one, for instance with make PYTHON=python3.12.'.format(*sys.version_info[:2]))"

# The demo converts safetensors, for which neither torch nor transformers is needed.
.venv-demo/ready: pyproject.toml constraints.txt | python
	@echo "Installing internvl-bridge, typer, xxhash and jinja2 into .venv-demo (without torch and transformers)."
	@$(PYTHON) -m venv --clear .venv-demo
	@$(DEMO)/python $(PIP_INSTALL) --constraint constraints.txt typer xxhash jinja2
	@PYTHONWARNINGS=ignore $(DEMO)/python $(PIP_INSTALL) --no-deps --editable .
	@touch $@

.venv/ready: pyproject.toml constraints.txt | python
	@echo "Installing internvl-bridge, torch, transformers and the tools of its developers into .venv."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python $(PIP_INSTALL) --upgrade 'pip>=25.1'
	@PYTHONWARNINGS=ignore $(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable . --group dev
	@$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --no-deps torchvision
	@touch $@

.venv-4/ready: pyproject.toml constraints.txt constraints-4.txt | python
	@echo "Installing internvl-bridge and transformers 4 into .venv-4."
	@$(PYTHON) -m venv .venv-4
	@$(BIN4)/python $(PIP_INSTALL) --upgrade 'pip>=25.1'
	@PYTHONWARNINGS=ignore $(BIN4)/python $(PIP_INSTALL) --constraint constraints-4.txt --editable . pytest pytest-xdist hypothesis peft pillow protobuf sentencepiece
	@$(BIN4)/python $(PIP_INSTALL) --constraint constraints-4.txt --no-deps torchvision
	@touch $@

.venv-oldest/ready: pyproject.toml constraints-oldest.txt | python
	@echo "Installing internvl-bridge and the oldest versions that it allows into .venv-oldest."
	@$(PYTHON) -m venv --clear .venv-oldest
	@$(OLDEST)/python $(PIP_INSTALL) --upgrade 'pip>=25.1'
	@PYTHONWARNINGS=ignore $(OLDEST)/python $(PIP_INSTALL) --constraint constraints-oldest.txt --editable . pytest pytest-xdist hypothesis jsonschema pillow protobuf sentencepiece
	@$(OLDEST)/python $(PIP_INSTALL) --constraint constraints.txt --no-deps torchvision
	@touch $@

# The serving engines, without what they depend on: what runs of them needs no GPU, and torch stays as it is.
.venv-engines/ready: pyproject.toml constraints.txt engines/requirements.txt | python
	@echo "Installing internvl-bridge and the code of serving engines into .venv-engines (downloads 600 MB)."
	@$(PYTHON) -m venv --clear .venv-engines
	@$(ENGINES)/python $(PIP_INSTALL) --upgrade 'pip>=25.1'
	@PYTHONWARNINGS=ignore $(ENGINES)/python $(PIP_INSTALL) --constraint constraints.txt --editable . pytest pillow protobuf sentencepiece
	@$(ENGINES)/python $(PIP_INSTALL) --no-deps --requirement engines/requirements.txt
	@$(ENGINES)/python $(PIP_INSTALL) --constraint constraints.txt scikit-build-core
	@$(ENGINES)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation --dest .venv-engines/sdists llama-cpp-python==0.3.36
	@touch $@

.venv-trainers/ready: pyproject.toml constraints.txt trainers/requirements.txt | python
	@echo "Installing internvl-bridge, TRL, accelerate and PEFT into .venv-trainers (1.5 GB with torch)."
	@$(PYTHON) -m venv --clear .venv-trainers
	@$(TRAINERS)/python $(PIP_INSTALL) --upgrade 'pip>=25.1'
	@PYTHONWARNINGS=ignore $(TRAINERS)/python $(PIP_INSTALL) --constraint constraints.txt --editable . pytest hypothesis pillow protobuf sentencepiece
	@$(TRAINERS)/python $(PIP_INSTALL) --constraint constraints.txt --requirement trainers/requirements.txt
	@touch $@

.venv-cluster/ready: pyproject.toml constraints.txt cluster/requirements.txt | python
	@echo "Installing internvl-bridge, Ray, Dask and MPI into .venv-cluster (1.5 GB with torch)."
	@$(PYTHON) -m venv --clear .venv-cluster
	@$(CLUSTER)/python $(PIP_INSTALL) --upgrade 'pip>=25.1'
	@PYTHONWARNINGS=ignore $(CLUSTER)/python $(PIP_INSTALL) --constraint constraints.txt --editable . pytest
	@$(CLUSTER)/python $(PIP_INSTALL) --requirement cluster/requirements.txt
	@touch $@
