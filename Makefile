# make check         formatting, lint, types
# make test          all tests that run by default (about four minutes on two cores)
# make core          tests of losses, MaxSim, titles and metrics (half a minute)
# make docs          write docs/commands.md and docs/configuration.md in both languages, then test the documents
# make site          build the documents as a site in build/site (extra: docs)
# make bench         benchmark against reference implementations
# make methods       measure the training modes on the demo dataset, into docs/methods.md (resumable)
# make equal-steps   compare the modes at equal total steps, into docs/methods.md (resumable)
# make interactions  compare cls, token-wise and bag-wise, and losses, into docs/methods.md (resumable)
# make pretraining   measure pretraining at an equal budget, into docs/methods.md (resumable)
# make translations  add new messages to the Chinese catalogue, remove unused ones

.PHONY: check test core docs site bench methods equal-steps interactions pretraining translations

check:
	ruff format --check .
	ruff check .
	mypy

test:
	pytest

core:
	pytest -m core

docs:
	python -m tests.support.commands_page
	python -m tests.support.configuration_page
	pytest tests/test_docs.py tests/test_twins.py

site:
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

bench:
	xmr bench

methods:
	[ -d runs/demo ] || xmr demo
	python docs/experiments/methods.py --backbone runs/demo --page docs/methods.md

equal-steps:
	[ -d runs/demo ] || xmr demo
	python docs/experiments/equal_steps.py --page docs/methods.md --plot docs/equal_steps.svg

interactions:
	python docs/experiments/interactions.py --page docs/methods.md --plot docs/interactions.svg

pretraining:
	python docs/experiments/pretraining.py --page docs/methods.md

translations:
	python -m tests.support.update_translations
