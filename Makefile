# A fresh machine needs Python 3.11 or later and make; everything else goes into .venv.
PYTHON ?= python3
MLFLOW_PORT ?= 5000
PREFECT_PORT ?= 4200
BIN := .venv/bin
READY := .venv/ready
N ?= 1000
SEED ?= 0
MLFLOW_TRACKING_URI ?= sqlite:///mlruns/mlflow.db

.PHONY: study setup test test-all faults lint ui lock base

study: $(READY)
	$(BIN)/holdfast study experiments/bundled.yaml

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Holdfast needs Python 3.11 or later: make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install -q uv
	@# Compiled once: without, every command and stage would do it again where Python may not write bytecode.
	$(BIN)/uv pip sync -q --compile-bytecode --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@

test: lint
	$(BIN)/pytest

test-all: lint
	$(BIN)/pytest -m "slow or not slow"

# The first N faults that SEED draws, each followed by the same command; again, it goes on with those that are missing.
faults: $(READY)
	PYTHONPATH=tests/support $(BIN)/python -m faults.campaign --faults $(N) --seed $(SEED) \
		--results faults-$(SEED).jsonl --table faults-$(SEED).md

lint: $(READY)
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# The base model that comes with holdfast, built again: more than half an hour on two cores.
base: $(READY)
	$(BIN)/python -m holdfast.stages.ship_base

lock: $(READY)
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --extra dev --no-header --no-annotate \
		pyproject.toml -o requirements.lock

ui: $(READY)
	@echo "MLflow   http://127.0.0.1:$(MLFLOW_PORT)"
	@echo "Prefect  http://127.0.0.1:$(PREFECT_PORT)"
	@echo "Ctrl-C ends both."
	@trap 'kill $$mlflow $$prefect 2>/dev/null' INT TERM EXIT; \
	$(BIN)/mlflow server --host 127.0.0.1 --port $(MLFLOW_PORT) --backend-store-uri $(MLFLOW_TRACKING_URI) \
		--default-artifact-root mlruns/artifacts & mlflow=$$!; \
	PREFECT_SERVER_ANALYTICS_ENABLED=false PREFECT_UI_API_URL=http://127.0.0.1:$(PREFECT_PORT)/api \
		$(BIN)/prefect server start --host 127.0.0.1 --port $(PREFECT_PORT) & prefect=$$!; \
	wait
