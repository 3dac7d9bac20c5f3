# learn-spark: two commands for a newcomer, quickstart and test.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
LOCK := $(VENV)/bin/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
	--custom-compile-command "make lock"

.PHONY: help setup quickstart test servers spark-versions check unit lint format docs site picture lock audit clean distclean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Create .venv with everything, locked by hashes; fetch the two Delta JARs (again: does nothing)
	@scripts/setup.sh

quickstart: setup ## Set up, then run the whole road on MovieLens-100K (ARGS="--set training.epochs=5")
	@$(VENV)/bin/learn-spark run quickstart $(ARGS)

test: setup servers lint ## Set up, check style and types, run all tests, two files at a time (ARGS="-k contracts": these, one at a time)
	@$(VENV)/bin/python -m pytest $(or $(ARGS),--numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 30)

servers: setup
	@scripts/test_servers.sh

spark-versions: setup servers ## Run the stages but training on Spark 4.1 too, in .venv-spark41, and compare with those of .venv
	@$(VENV)/bin/python -m pytest tests/setup/test_spark_versions.py $(ARGS)

check: ## Style, imports, types, and the unit tests, which start neither Spark nor a model; both at the same time
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint unit

unit: setup
	@$(VENV)/bin/python -m pytest -m unit --numprocesses 2 --dist loadfile $(ARGS)

lint: setup ## Check style (ruff), imports (import-linter) and types (mypy)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/lint-imports --no-cache
	@$(VENV)/bin/mypy

format: setup ## Put the source into ruff's format
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

docs: setup ## Write docs/data.md (from schemas/) and docs/settings.md (from learn_spark/core/settings/) anew
	@$(VENV)/bin/python -m learn_spark.report.data_page > docs/data.md.new
	@mv docs/data.md.new docs/data.md
	@$(VENV)/bin/python -m learn_spark.report.settings_page > docs/settings.md.new
	@mv docs/settings.md.new docs/settings.md

site: setup ## Build the documentation as a site in site/ (strict: a dead link fails)
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict
	@echo "open site/index.html"

picture: ## Draw the README's pictures of the front page, from var/quickstart (needs Chromium)
	@scripts/picture.sh var/quickstart docs/images/report.png

bench-%: setup ## Run benchmarks/%.py (bench-histories; bench-daily; bench-days ARGS="--folder DIR")
	@$(VENV)/bin/python -m benchmarks.$* $(ARGS)

lock: setup ## Resolve the dependencies anew into requirements/*.txt
	@$(LOCK) --extra dev pyproject.toml -o requirements/lock.txt
	@$(LOCK) requirements/tools.in -o requirements/tools.txt
	@$(LOCK) --no-deps requirements/demo.in -o requirements/demo.txt
	@$(LOCK) requirements/servers.in -o requirements/servers.txt
	@$(LOCK) --extra spark --extra quality --extra encode --extra index --extra ads pyproject.toml requirements/spark41.in \
	  -o requirements/spark41.txt

# --strict: without it, packages that cannot be looked up are passed over, and "No known vulnerabilities found" is printed.
audit: setup ## Look up known faults of the locked packages by pip-audit (asks the package index)
	@$(VENV)/bin/uv tool run pip-audit --strict --disable-pip --require-hashes --requirement requirements/lock.txt

clean: ## Remove build artefacts and caches; keep .venv and var/
	@rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis spark-warehouse
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## Remove the environment too; keep var/ (tables, models, reports)
	@rm -rf $(VENV) .venv-servers .venv-spark41 examples/feast/.venv-feast .setup.log .setup.lock
