# `make help` explains every target. The first use of one sets everything up in .venv.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 8000
MODEL := models/demo-base
export VLLM_CPU_KVCACHE_SPACE ?= 1
export VLLM_NO_USAGE_STATS ?= 1

.PHONY: help setup serve test test-core test-properties test-slow test-background test-rest test-all test-vllm lint bench soak demo docs clean
.DEFAULT_GOAL := help

help: ## Explain the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10
	@echo
	@echo 'Settings: ACCELERATOR=cpu|cuda (default: cuda if an NVIDIA GPU answers), PORT=8000,'
	@echo 'PYTHON=python3.11, TORCH_INDEX=URL of a package index with CPU builds of torch, and for'
	@echo 'set-up those of pip: PIP_INDEX_URL, PIP_PROXY, PIP_CERT, HTTPS_PROXY, ...'

setup: ## Create .venv and install the pinned packages (every target does this first)
	@[ -n "$(PYTHON)" ] || { echo 'stepgrpo set-up: Python 3.11 is needed, and no python3 was found.'; exit 1; }
	@$(PYTHON) scripts/setup.py

serve: setup ## Serve demo-base, with early exit, and demo-step-grpo on http://localhost:8000
	.venv/bin/stepgrpo-serve $(MODEL) --served-model-name demo-base --port $(PORT) \
		--dtype float32 --max-model-len 2048 --enforce-eager --reasoning-parser qwen3 \
		--enable-lora --lora-modules demo-step-grpo=models/demo-step-grpo \
		--exit-policy confidence

test: setup ## Run the fast tier of the tests: unit tests, and one of each kind on real vLLM
	@scripts/beside.sh .cache/test-unit.log \
		".venv/bin/pytest -m 'not slow' tests/unit $(ARGS)" \
		".venv/bin/pytest -m 'not slow' --ignore=tests/unit $(ARGS)"

test-core: setup ## Run the core's own tests; they reach every branch of it
	.venv/bin/pytest tests/unit/core --cov -m 'not slow' --hypothesis-profile few $(ARGS)

test-properties: setup ## Run property tests with 100 examples each
	.venv/bin/pytest tests/unit -m hypothesis --hypothesis-profile thorough $(ARGS)

test-slow: setup ## Run what `make test` leaves out: tests on a server
	.venv/bin/pytest -m 'slow and not background' $(ARGS)

test-background: setup ## Run what `make test` leaves out: training, evaluation, and other long jobs
	.venv/bin/pytest -m 'slow and background' $(ARGS)

test-rest: setup ## Run the four targets above, the first three at the same time
	@scripts/beside.sh .cache/test-core.log \
		"$(MAKE) --no-print-directory test-core test-properties" \
		"$(MAKE) --no-print-directory test-slow"
	@$(MAKE) --no-print-directory test-background

test-all: test test-rest ## Run all tests

test-vllm: setup ## Test the server with another vLLM: VLLM=0.32.0, UV_ARGS="--find-links DIR"
	@scripts/test_vllm.sh $(VLLM) $(UV_ARGS)

lint: setup ## Check style (ruff) and types (mypy strict)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: setup ## Measure server and rollouts against their peers, and more; QUICK=1: whether it runs
	.venv/bin/python -m benchmarks.core.segmenter
	.venv/bin/python -m benchmarks.serving.startup $(if $(QUICK),--rounds 1)
	.venv/bin/python -m benchmarks.training.rewards $(if $(QUICK),--rounds 3 --steps 5)
	.venv/bin/python -m benchmarks.training.rollouts $(if $(QUICK),--pairs 1 --prompts 2)
	.venv/bin/python -m benchmarks.serving.ceiling $(if $(QUICK),--rounds 1 --streams 16)
	.venv/bin/python -m benchmarks.serving.speed $(if $(QUICK),--quick)

soak: setup ## Twenty minutes of traffic and faults on real vLLM; MINUTES=5, or QUICK=1
	.venv/bin/python -m benchmarks.faults.soak $(if $(QUICK),--quick,--minutes $(or $(MINUTES),20))

demo: setup ## Train and compare Step-GRPO and GRPO+LP on the demo world (resumes where it stopped)
	.venv/bin/stepgrpo-train demo results --reduced --output outputs/demo-results

docs: setup ## Regenerate what is generated in docs/
	.venv/bin/python -m scripts.docs

clean: ## Remove .venv, caches and outputs
	rm -rf .venv .venv-vllm-* .cache outputs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
