# A new machine needs nothing but Python 3.11 or newer and one of these:
#   make demo   convert a small synthetic checkpoint both ways and show it
#   make test   run the whole test suite

PYTHON ?= python3
BIN := .venv/bin
BIN4 := .venv-4/bin

.PHONY: demo test test-matrix lint types format benchmark clean

demo: .venv/ready
	$(BIN)/python examples/demo.py

test: .venv/ready
	$(BIN)/python -m pytest --cov=internvl_bridge --cov-report=
	$(BIN)/coverage report
	$(BIN)/coverage report --include='internvl_bridge/mapping/*,internvl_bridge/planning/*,internvl_bridge/metadata/*,internvl_bridge/strict_json.py,internvl_bridge/checkpoint/random_matrix.py' --fail-under=100

# The same models in transformers 4.57, the 4.x that people still run.
test-matrix: .venv-4/ready
	$(BIN4)/python -m pytest tests/end_to_end/test_parity.py tests/end_to_end/test_loaded_by_transformers.py tests/end_to_end/test_spellings_on_disk.py tests/in_memory/test_loading.py

lint: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: .venv/ready
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

benchmark: .venv/ready
	$(BIN)/python benchmarks/convert.py

clean:
	rm -rf .venv .venv-4 demo-output

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps torchvision
	touch $@

.venv-4/ready: pyproject.toml constraints.txt constraints-4.txt
	$(PYTHON) -m venv .venv-4
	$(BIN4)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN4)/python -m pip install --quiet --constraint constraints-4.txt --editable . pytest hypothesis pillow protobuf sentencepiece
	$(BIN4)/python -m pip install --quiet --constraint constraints-4.txt --no-deps torchvision
	touch $@
