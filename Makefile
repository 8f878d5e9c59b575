# make demo       from nothing to a report on simulated data, in ./demo
# make test       the test suite; make test-fast leaves out what is slow
# make test-lowest   the test suite with the lowest versions that pyproject.toml allows
# make coverage   the test suite, and the share of the code that it runs, which has a floor
# make lint       style, types, spelling and import contracts
# make docs       the documentation as a site, in build/site; warnings are errors
# make reference  pages of docs/reference and the Boutiques descriptor, from the code
# make image      the Docker image
# make release    distributions of a version in dist/, checked and installed once
# make bench      speed and memory beside MONAI and fmrisim, ablations, in some hours on 2 cores

PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
PYTEST_ARGS ?= -n 2
BENCH ?= bench
# latents of 32 mm and a small network, which two cores train in minutes
COARSE := --set preprocess.voxel_size=8 --set autoencoder.latent_channels=16 \
	--set 'denoiser.backbone.widths=[64,128]' --set 'denoiser.backbone.blocks=[1,1]'
ABLATION_ARGS ?= --seeds 0 --only full MONAI "less response model" "paper's method"
BACKBONE_ARGS ?= --seeds 0 --only hybrid MONAI "hybrid, plain"

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PHANTOM := $(DEMO)/phantom
RESULT := $(DEMO)/fmrisynth
RUN := $(BIN)/fmrisynth $(PHANTOM) $(RESULT)
HELD_OUT := 'import json, sys; print(*json.load(open(sys.argv[1]))["split"]["held_out"])'
SOURCES := $(shell find fmrisynth -type f -not -name '*.pyc')

# pip builds in the tree: a stale build/ would bring back files that are no longer there
define install
rm -rf build
$(PIP) install --quiet --constraint constraints.txt "$(1)"
endef

comma := ,

.DELETE_ON_ERROR:
.PHONY: help demo test test-fast test-lowest coverage lint docs reference image release bench clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

# torch comes first and by itself: a CPU build that pip has at hand satisfies it
$(VENV)/torch.stamp: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet "$$(grep '^torch==' constraints.txt)"
	touch $@

$(VENV)/app.stamp: $(VENV)/torch.stamp pyproject.toml README.md $(SOURCES)
	$(call install,.)
	touch $@

$(VENV)/test.stamp: $(VENV)/torch.stamp pyproject.toml README.md $(SOURCES)
	$(call install,.[test])
	touch $@ $(VENV)/app.stamp

$(VENV)/docs.stamp: $(VENV)/torch.stamp pyproject.toml README.md $(SOURCES)
	$(call install,.[docs])
	touch $@ $(VENV)/app.stamp

$(VENV)/bench.stamp: $(VENV)/torch.stamp pyproject.toml README.md $(SOURCES)
	$(call install,.[monai$(comma)fmrisim])
	touch $@ $(VENV)/app.stamp

$(PHANTOM)/dataset_description.json: | $(VENV)/app.stamp
	$(BIN)/python -m fmrisynth.phantom $(PHANTOM) --realism full

# One call of the participant level would write all participants. The report compares the
# held-out ones alone, so the demo trains first and then writes just these.
demo: $(VENV)/app.stamp $(PHANTOM)/dataset_description.json
	$(RUN) participant --train-only
	$(RUN) participant --participant-label $$($(BIN)/python -c $(HELD_OUT) $(RESULT)/model/config.json)
	$(RUN) group
	@$(BIN)/python examples/headline.py $(RESULT)/group/metrics.tsv
	@cat $(RESULT)/model/skill.tsv
	@echo "report: $(abspath $(RESULT))/group.html"

test: $(VENV)/test.stamp
	$(BIN)/pytest $(PYTEST_ARGS)

test-fast: $(VENV)/test.stamp
	$(BIN)/pytest $(PYTEST_ARGS) -m "not slow"

# the lowest versions that pyproject.toml allows, chosen by uv
test-lowest:
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet uv
	$(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest/bin/python \
		--resolution lowest-direct ".[test]"
	$(VENV)-lowest/bin/pytest $(PYTEST_ARGS)

coverage: $(VENV)/test.stamp
	$(BIN)/pytest $(PYTEST_ARGS) --cov --cov-report=term-missing:skip-covered

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/lint-imports

docs: $(VENV)/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

reference: $(VENV)/test.stamp
	$(BIN)/python -m fmrisynth.cli.reference .

image:
	docker build -t fmrisynth .

release: $(VENV)/test.stamp
	PYTHON=$(BIN)/python .ci/release

$(BENCH)/%/dataset_description.json: | $(VENV)/bench.stamp
	mkdir -p $(BENCH)
	$(BIN)/python -m fmrisynth.phantom $(BENCH)/$* --realism $* --n-participants 24 \
		--voxel-size 8 --tsnr 300

bench: $(VENV)/bench.stamp $(BENCH)/gaussian/dataset_description.json \
		$(BENCH)/full/dataset_description.json
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/autoencoder.py
	$(BIN)/python benchmarks/synthesis.py
	$(BIN)/python benchmarks/synthesis.py --hcp
	$(BIN)/python benchmarks/cores.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/memory.py --accumulate 2
	$(BIN)/python benchmarks/backbone_alone.py $(BENCH)/gaussian $(BENCH)/alone $(COARSE) $(BACKBONE_ARGS)
	$(BIN)/python benchmarks/time_to_quality.py $(BENCH)/gaussian $(BENCH)/time $(COARSE)
	$(BIN)/python benchmarks/ablation.py $(BENCH)/full $(BENCH)/ablation $(COARSE) $(ABLATION_ARGS)

clean:
	rm -rf $(VENV) $(VENV)-lowest $(DEMO) $(BENCH) build dist *.egg-info .coverage*
