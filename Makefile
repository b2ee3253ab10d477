# `make demo` and `make test` work on a fresh machine: both make .venv with pinned versions first.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: help demo test department lint zoo clean

help:
	@echo "make demo             train ADFA on images and leave demo_output/report.html (DATA=DIR for your own images)"
	@echo "make test             run all tests"
	@echo "make department       push studies through Orthanc, the service and back (needs orthanc, dcmtk, dicom3tools)"
	@echo "make lint             ruff and mypy"
	@echo "make zoo              build the zoo bundles into build/zoo (WEIGHTS=DIR for trained weights)"
	@echo "make clean            remove .venv and everything generated"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev,service]'
	@touch $@

test: $(STAMP)
	$(RUN) -m pytest

department: $(STAMP)
	$(RUN) -m pytest -m servers tests/service --log-cli-level=INFO

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

demo: $(STAMP)
	$(RUN) scripts/demo.py --output_dir demo_output $(if $(DATA),--dataset_dir $(DATA))

zoo: $(STAMP)
	$(RUN) scripts/build_zoo.py $(if $(WEIGHTS),--weights $(WEIGHTS))

clean:
	rm -rf $(VENV) demo_output build *.egg-info .pytest_cache .mypy_cache .ruff_cache
