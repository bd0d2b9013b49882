# digestry: `make demo` plays the story, `make test` runs the tests. Both set up .venv first.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ENGINE ?=
# Test processes: twice as many as cores, since many tests wait.
WORKERS ?= 4

.PHONY: demo test test-all reality check bench docs dist pex lock format clean setup

setup: $(VENV)/.ready

$(VENV)/.ready: requirements/dev.txt pyproject.toml tools/setup.py
	@$(PYTHON) tools/setup.py $(VENV)

demo: setup
	@$(BIN)/digestry demo $(if $(ENGINE),--engine $(ENGINE))

# Bytecode is kept: else each test process would compile all tests anew.
test test-all reality: export PYTHONDONTWRITEBYTECODE =

# What is marked `long` is left out, or has a short form: fewer steps, seconds, examples or clients of the same kind.
# ALL=1 runs it, and shortens nothing; the checks of a change do that.
test: setup
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not reality$(if $(ALL),, and not long)" $(if $(ALL),--in-full) $(ARGS)

test-all: setup
	@$(MAKE) --no-print-directory test ALL=1

# Real engines of three Debian releases, which `tools/debian_roots.py` fetches into a folder (root).
reality: setup
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m reality tests/e2e/reality $(ARGS)

check: setup
	@$(BIN)/ruff check src tests bench tools
	@$(BIN)/ruff format --check src tests bench tools
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup
	@$(BIN)/python -m bench $(ARGS)
	@$(BIN)/python -m bench.access
	@$(BIN)/python -m bench.client
	@$(BIN)/python -m bench.agents
	@$(BIN)/python -m bench.pages

# The documentation as a site, in build/docs. A warning fails it.
docs: $(VENV)/.docs-ready
	@$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky -q -j 2 -d build/docs.cache docs build/docs

$(VENV)/.docs-ready: $(VENV)/.ready requirements/docs.txt
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/docs.txt
	@touch $@

# The sdist and the wheel, in dist/: the same bytes from the same source.
dist: setup
	@$(BIN)/python -m hatchling build -t sdist -t wheel

# The program and all that it needs, in one file for this platform's Pythons of this version: dist/digestry.pex.
pex: dist
	@mkdir -p build
	@for wheel in dist/digestry-*.whl; do \
		echo "$$PWD/$$wheel --hash=sha256:$$(sha256sum "$$wheel" | cut -c1-64)"; done | cat requirements/run.txt - >build/pex.txt
	@$(BIN)/uv pip install --quiet --target build/pex --require-hashes -r requirements/pex.txt
	@PYTHONPATH=build/pex $(BIN)/python -m pex -r build/pex.txt -c digestry --venv --sh-boot -o dist/digestry.pex

format: setup
	@$(BIN)/ruff check --fix src tests bench tools
	@$(BIN)/ruff format src tests bench tools

# The lock is made for every supported platform and Python at once, from pyproject.toml alone.
lock: setup
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" pyproject.toml -o requirements/run.txt
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" -c requirements/run.txt --group dev pyproject.toml -o requirements/dev.txt
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" -c requirements/dev.txt --group docs -o requirements/docs.txt
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" -c requirements/dev.txt --group build -o requirements/build.txt
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" --group pex -o requirements/pex.txt
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" -c requirements/dev.txt --extra aws pyproject.toml -o requirements/image.txt

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .demo
