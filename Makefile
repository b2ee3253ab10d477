# `make demo` and `make test` work on a fresh machine: each first makes an environment of its own with pinned versions.
PYTHON ?= python3
DEMO := .venv-demo
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
TOOLS := $(VENV)-tools
# two test files at a time; a file keeps to one process, for what its tests share
PARALLEL := -n 2 --dist loadfile
# threads of a network that wait for each other leave the core to whoever has work, such as the writer of results
export OMP_WAIT_POLICY ?= passive

.PHONY: help demo test test-all test-long check-docs docs department lint zoo sbom audit clean

help:
	@echo "make demo             train ADFA on images and leave demo_output/report.html (DATA=DIR for your own images)"
	@echo "make test             run the tests: every unit, and one whole run of each family"
	@echo "make test-all         run what continuous integration runs: lint, all further tests, pixels against dcmtk, studies through Orthanc"
	@echo "make test-long        run the tests of every further setting, which take minutes"
	@echo "make check-docs       run every command of README.md and docs/ at small size (about 12 minutes; PAGES=... for some)"
	@echo "make docs             build the documentation site into build/site, strictly (serve it: .venv/bin/mkdocs serve)"
	@echo "make department       push studies through Orthanc, the service and back (needs orthanc, dcmtk, dicom3tools)"
	@echo "make lint             ruff and mypy"
	@echo "make zoo              build the zoo bundles into build/zoo (WEIGHTS=DIR for models of your own)"
	@echo "make sbom             write the software bill of materials of what make installs (CycloneDX)"
	@echo "make audit            ask PyPI's advisories about the pinned packages"
	@echo "flags of a run: docs/configs.md; of a script: python scripts/NAME.py --help"
	@echo "make clean            remove the environments and everything generated"

$(STAMP): EXTRAS := [dev,service]
$(STAMP) $(DEMO)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.$(EXTRAS)'
	@touch $@

test: $(STAMP)
	$(RUN) -m pytest $(PARALLEL)

test-all:
	.ci/run

test-long: $(STAMP)
	$(RUN) -m pytest $(PARALLEL) -m long

check-docs: $(STAMP)
	$(RUN) scripts/checks/check_docs.py $(if $(PAGES),--pages $(PAGES))

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

department: $(STAMP)
	$(RUN) -m pytest -m servers tests/service --log-cli-level=INFO

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# in the environment of a user: the package and what it needs
demo: $(DEMO)/.installed
	$(DEMO)/bin/python scripts/demo.py --output_dir demo_output $(if $(DATA),--dataset_dir $(DATA))

zoo: $(STAMP)
	$(RUN) scripts/build_zoo.py $(if $(WEIGHTS),--weights $(WEIGHTS))

# in an environment of their own, so that they do not stand in the bill themselves
$(TOOLS)/.installed:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet cyclonedx-bom==7.5.0 pip-audit==2.10.1
	@touch $@

sbom: $(STAMP) $(TOOLS)/.installed
	@mkdir -p build
	$(TOOLS)/bin/cyclonedx-py environment $(RUN) --pyproject pyproject.toml --output-reproducible -o build/sbom.cdx.json

audit: $(TOOLS)/.installed
	$(TOOLS)/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

clean:
	rm -rf $(DEMO) $(VENV) $(TOOLS) demo_output build *.egg-info .pytest_cache .mypy_cache .ruff_cache
