# The interface: thin calls, no logic. `make setup EXTRA=torch` adds the torch trainer.
PYTHON ?= python3.11
EXTRA ?=
IMAGES ?= cpu serve
REGISTRY ?=
BIN := .venv/bin
LOCK := requirements/$(or $(EXTRA),dev).txt
EXHAUSTIVE := tests/properties/test_ledger_interleavings.py tests/unit/promote/test_promote_kill.py \
	tests/unit/core/test_core_ledger_retraining_kill.py
STAMP := .venv/.installed-$(or $(EXTRA),dev)

# Compiled once, imported fast: without bytecode every step compiles its libraries again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-exhaustive check bench charts-live compile images infra hydrate lock golden charts clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## make .venv with .venv/bin/driftline

$(STAMP): $(LOCK) pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r $(LOCK)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	touch $@

demo: setup  ## run the main job: train, gate, package and promote a model, then ask it
	$(BIN)/driftline demo

test: setup  ## pass the tests (fast ones; at most ten minutes on two cores)
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

test-slow: setup  ## pass the slow tests: whole runs, kills, 10,000 keys
	$(BIN)/pytest -m slow $(addprefix --ignore=,$(EXHAUSTIVE))

test-exhaustive: setup  ## kill promotions and retrainings at every statement, run 1,000 interleavings: an hour
	$(BIN)/pytest -m slow $(EXHAUSTIVE)

check: setup  ## lint, types, import contracts, lock and golden drift
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/golden

charts-live: setup  ## the charts, the policies and a release on a real Kubernetes with Argo CD (docs/operator.md)
	$(BIN)/pytest -v tests/cluster/gitops tests/cluster/test_cluster_policies.py

bench: setup  ## measure against peers in the same run, as ratios
	for b in benchmarks/*.py; do $(BIN)/python $$b || exit 1; done

compile: setup  ## compile every use case's pipeline to dist/
	$(BIN)/driftline compile

images: setup  ## build container images: IMAGES="cpu serve gpu", REGISTRY=host/prefix to push and pin them
	$(BIN)/driftline images $(IMAGES) $(if $(REGISTRY),--registry $(REGISTRY))

charts: setup  ## write the READMEs of charts/, render all with all their values and check what comes out
	$(BIN)/python charts/render_readmes.py
	$(BIN)/pytest -q tests/charts

infra: setup  ## pin schedules to what is compiled, then say what would not render in infra/: CLUSTER=prod for one
	$(BIN)/driftline infra pin
	$(BIN)/driftline infra check $(if $(CLUSTER),--cluster $(CLUSTER))

hydrate:  ## render KFP once to infra/kfp/hydrated/: CLUSTER=prod; for clusters that reach no repository but yours
	mkdir -p infra/kfp/hydrated/$(CLUSTER)
	kubectl kustomize infra/kfp/overlays/$(CLUSTER) > infra/kfp/hydrated/$(CLUSTER)/.part
	mv infra/kfp/hydrated/$(CLUSTER)/.part infra/kfp/hydrated/$(CLUSTER)/kfp.yaml
	printf 'kind: Kustomization\nresources: [kfp.yaml]\n' > infra/kfp/hydrated/$(CLUSTER)/kustomization.yaml

lock: setup  ## resolve requirements/ again
	sh requirements/lock.sh $(BIN)/uv

golden: setup  ## rewrite the golden files after a wanted change
	$(BIN)/pytest -q tests/golden --update-golden

clean:  ## remove state and environment
	rm -rf .venv .driftline dist
