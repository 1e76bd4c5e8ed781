"""The sources, messages and documents are written in plain words.

The rules are in ``tests/support/language.py``: words and sentence openings that read like riddles,
words that the glossary replaces by another, and the first lines of docstrings. To see every finding
of one package or module, exempt or not::

    python -m tests.support.language text index.search docs

To hold one package only: ``pytest tests/test_language.py -k text``.
"""

from __future__ import annotations

import pytest

from tests.support import language
from tests.support.sources import modules

# Package, module or document -> reason.
EXEMPT: dict[str, str] = {
    "bench.index": "its JSON key `beside` stays",
}

PACKAGES = sorted({module.split(".")[0] for module in modules()})


def is_exempt(module: str) -> bool:
    return any(language.covers(name, module) for name in EXEMPT)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_in_plain_words(package: str) -> None:
    found = [
        str(finding)
        for module in sorted(modules())
        if module.split(".")[0] == package and not is_exempt(module)
        for finding in language.findings(module)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("document", language.documents())
def test_a_document_is_in_plain_words(document: str) -> None:
    if is_exempt(document):
        pytest.skip(EXEMPT[document])
    assert not language.document_findings(document)


def test_every_exemption_names_something() -> None:
    known = [*modules(), *language.documents()]
    stale = [n for n in EXEMPT if not any(language.covers(n, one) for one in known)]
    assert not stale, "no such module or document"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Go through the list anew.", "anew"),
        ("Progress is told of images.", "told"),
        ("Scores pairs a second.", "pairs a second"),
        ("Args:\n    k: Of each query.", "Of each query."),
        ("A cache. What is left is read.", "What is left is"),
        ("There is none here.", "There is none"),
    ],
)
def test_riddles_are_found(text: str, rule: str) -> None:
    prose = language.Prose(1, text, "docstring")
    assert rule in {finding.text for finding in language.in_prose("text", prose)}


@pytest.mark.parametrize(
    "text",
    [
        "What is a bag? A run of tokens.",
        "Score every title against every image.",
        "The token of the image, named `mirror`.",
    ],
)
def test_plain_sentences_pass(text: str) -> None:
    prose = language.Prose(1, language.without_code(text), "docstring")
    assert not list(language.in_prose("text", prose))
