# Every target installs what it needs first. ARGS is passed to the script: make train ARGS="--epochs 5"
MAKEFLAGS += --no-print-directory --no-builtin-rules
PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest -q
ARGS ?=

.PHONY: help init example test test-slow test-all test-floor check tiles train tensorboard streamlit bench gpu-check \
    pictures pretrained requirements clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

init: ## install uv, Python >= 3.12, .venv and the pinned packages (TORCH=cpu|cu126|... picks the PyTorch build)
	@./setup.sh init

example: init ## run the whole chain on the bundled city: tiles, training, vectors, pictures
	@$(PYTHON) run_example.py $(ARGS)

test: ## set up what the tests need and run the fast ones
	@./setup.sh browser
	@$(PYTEST) -n auto --dist worksteal -m "not slow and not gpu" $(ARGS)

test-slow: ## run the slow tests
	@./setup.sh browser
	@$(PYTEST) -n auto --dist loadfile -m "slow and not gpu" $(ARGS)

test-all: ## run the fast and the slow tests
	@./setup.sh browser
	@$(PYTEST) -n auto --dist loadfile -m "not gpu" $(ARGS)

test-floor: ## run the fast tests on the oldest releases that pyproject.toml allows
	@./setup.sh floor
	@.venv-floor/bin/python -m pytest -q -n auto --dist worksteal -m "not slow and not gpu" \
	    -W default::DeprecationWarning -W default::FutureWarning -W default::PendingDeprecationWarning $(ARGS)

check: ## lint, formatting and types, Python and JavaScript
	@./setup.sh types
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .
	@.venv/bin/mypy
	@PATH="$(CURDIR)/.venv/bin:$$PATH" web/node_modules/.bin/tsc -p web

tiles: init ## download and render Kyiv
	@$(PYTHON) render_tiles.py --city kyiv $(ARGS)

train: init ## train on 12_layer_tiles/tiles
	@$(PYTHON) train.py $(ARGS)

tensorboard: init ## watch the training at http://localhost:6006
	@.venv/bin/tensorboard --logdir runs $(ARGS)

streamlit: init ## the live app
	@.venv/bin/streamlit run streamlit_app.py $(ARGS)

bench: ## print every performance figure of docs/speed.md
	@./setup.sh browser
	@$(PYTHON) bench.py $(ARGS)

gpu-check: ## try out this machine's GPU for about 8 minutes; writes docs/gpu/<chip>.md
	@./setup.sh dev
	@$(PYTHON) gpu_check.py $(ARGS)

pictures: ## draw the pictures of README and docs again, after `make example`
	@./setup.sh browser
	@$(PYTHON) docs/make_pictures.py $(ARGS)

pretrained: init ## train the bundled encoder again, on the sample city and EXTRACTS="A.osm.pbf B.osm.pbf"
	@for extract in sample_data/astana.osm.pbf $(EXTRACTS); do \
	    $(PYTHON) render_tiles.py "$$extract" --tiles_root "build/tiles/$$(basename "$$extract" .osm.pbf)" || exit; done
	@$(PYTHON) train.py --preset recommended --epochs 8 --tiles_root build/tiles/* --output_dir build/checkpoints $(ARGS)
	@$(PYTHON) pretrained.py --model_path build/checkpoints/best_model.pth

requirements: ## compile requirements*.txt again from pyproject.toml (ARGS=--upgrade for newer releases)
	@ARGS="$(ARGS)" ./setup.sh pin

clean: ## remove caches and drawings; tiles, checkpoints, runs and .venv stay
	@rm -rf cache visualizations interactive_visualizations .pytest_cache .ruff_cache
	@find . -name __pycache__ -not -path './.venv*/*' -prune -exec rm -rf {} +
