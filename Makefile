# make check   formatting, lint, types
# make test    the quick tests (about four minutes on two cores)
# make docs    write docs/commands.md anew from the help pages, then check the documents
# make bench   speed beside the plain reference way
# make methods  teachers and students on the demo set, into docs/methods.md (resumable; not in CI)
# make pretraining  what it gives at an equal budget, into docs/methods.md (resumable; not in CI)
# make translations   add new messages to the Chinese catalogue, remove unused ones

.PHONY: check test docs bench methods pretraining translations

check:
	ruff format --check .
	ruff check .
	mypy

test:
	pytest

docs:
	python -m tests.support.commands_page
	pytest tests/test_docs.py

bench:
	xmr bench

methods:
	[ -d runs/demo ] || xmr demo
	python docs/experiments/methods.py --backbone runs/demo --page docs/methods.md

pretraining:
	python docs/experiments/pretraining.py --page docs/methods.md

translations:
	python -m tests.support.update_translations
