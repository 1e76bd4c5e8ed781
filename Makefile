# make check   formatting, lint, types
# make test    the quick tests (about four minutes on two cores)
# make docs    write docs/commands.md anew from the help pages, then check the documents
# make bench   speed beside the plain reference way
# make translations   sentences that locales/zh.json lacks

.PHONY: check test docs bench translations

check:
	ruff format --check .
	ruff check .
	mypy

test:
	pytest

docs:
	python -m tests.commands_page
	pytest tests/test_docs.py

bench:
	xmr bench

translations:
	python -m tests.sources
