"""The checkable part of how this project writes: word lists over docstrings, comments, messages.

``python -m tests.support.language text index.search docs`` lists the findings in the package
``text``, the module ``index.search`` and the documents, whether or not they are exempt in
``tests/test_language.py``. Without arguments it checks everything.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.support.sources import PACKAGE, modules, sentences

ROOT = PACKAGE.parent
DOCUMENTS = ("README.md", "CHANGELOG.md", "docs", "data/README.md", "entity_dicts/README.md")
UNEDITED = {"docs/log.md", "docs/commands.md"}  # a dated log; the messages again

# Pattern -> advice. Searched in all prose, without regard to case.
WORDS: dict[str, str] = {
    # No riddles: a plain verb or a plain word says it.
    r"told|tells": "say who passes which value to whom",
    r"(?:is|are|was|were|be|been) asked": "say who requests what",
    r"anew": "again",
    r"of (?:its|their|one's) own": "separate, alone, or leave it out",
    r"beside": "next to, besides, with, compared with",
    r"behind": "after, below, in",
    r"so many": "name the number",
    r"piles? of": "many, a file of",
    r"go(?:es)? on|went on": "continue",
    r"there is none|there are none": "say what is missing",
    r"that which|those which": "name the thing",
    r"in the mean|in the middle of": "on average; while, during",
    r"mend|mends|mended|mending|reckon|reckons|reckoned|whence|thereof|lest|dearer|dearest|"
    r"farther|nought|betokens?": "a common word: fix, compute, expensive, further …",
    r"(?:titles|pairs|samples|images|vectors|bytes|queries|products|tokens|bags|rows|codes|"
    r"operations|cells|characters|searches|steps|times|milliseconds|seconds|ms|[KMG]i?B) an? "
    r"(?:second|title|image|item|query|vector|bag|token|product|step|row|text|seed|run|process|"
    r"epoch|batch|search|document|centroid)": "per",
    r"(?:one|an? \w+) an? (?:line|core|side|second|process|item|title|image)": "per",
    # The glossary.
    r"mirror|mirrors|mirrored": "the cache (of vectors); an image is flipped",
    r"tries|trie": "automaton",
    r"believed": "soft targets",
    r"slow scorers?|judges?": "cross-encoder",
    r"selling words?": "marketing word",
    r"by chance|at chance|above chance|chance (?:loss|level|r@\d+)": "random-guess loss, random",
    r"same chance|random chance|the chance of": "RNG state, probability",
}
# Not in prose for users (messages, documents), nor in the package that draws pictures.
CODE_WORDS: dict[str, str] = {
    r"pictures?|photos?": "image",
}
NOT_IN_AVX512: dict[str, str] = {r"lanes?": "only the AVX-512 kernels have lanes"}
IDENTIFIERS: dict[str, str] = {
    r"believed": "soft_targets",
    r"fewer": "reduction",
    r"mirror": "cache",
    r"trie": "automaton",
    r"anew|told|tell": "a plain verb",
    r"chance": "rng_state, random_guess",
}
# A sentence does not open with these, unless it is a question.
OPENERS = r"What|Whatever|That which|There is none|There are none|So many|Of|Who|Whose|Told|Asked"
# Nor the first line of a docstring with these …
FIRST_WORDS = r"What|Whether|How|Of|Which|Where|Who|When"
# … nor that of a public function, which says what it does in the imperative.
FUNCTION_FIRST_WORDS = rf"{FIRST_WORDS}|The|A|An|This|That|It|One|All|Each|Every|Some"


@dataclass(frozen=True)
class Finding:
    """One place that a rule objects to."""

    module: str
    line: int
    text: str
    advice: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.text!r} → {self.advice}"


@dataclass(frozen=True)
class Prose:
    """A docstring, comment or message."""

    line: int
    text: str
    kind: str  # "docstring", "comment", "message" or "document"


def findings(module: str) -> list[Finding]:
    """List what the rules object to in one module."""
    tree = modules()[module]
    found = []
    for prose in [*_docstrings(tree), *_comments(module), *_messages(module)]:
        found += in_prose(module, prose)
    found += _first_lines(module, tree)
    found += _identifiers(module, tree)
    return sorted(found, key=lambda one: one.line)


def document_findings(name: str) -> list[Finding]:
    """List what the rules object to in a document, named by its path from the root."""
    text = (ROOT / name).read_text("utf-8")
    blocks = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
    text = blocks.sub(lambda block: "\n" * block[0].count("\n"), text)
    return list(in_prose(name, Prose(1, without_code(text), "document")))


def documents() -> list[str]:
    """List the English documents by their paths from the root."""
    paths = [ROOT / name for name in DOCUMENTS]
    files = [f for path in paths for f in (sorted(path.rglob("*.md")) if path.is_dir() else [path])]
    names = [file.relative_to(ROOT).as_posix() for file in files]
    return [n for n in names if n not in UNEDITED and not n.endswith(".zh.md")]


def without_code(text: str) -> str:
    """Remove `code` from a text."""
    return re.sub(r"(?::\w+:)?``?[^`\n]*``?", "", text)


def _docstrings(tree: ast.Module) -> Iterator[Prose]:
    """Docstrings, and the strings that stand under an assignment."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text = node.value.value
            if isinstance(text, str):
                yield Prose(node.lineno, without_code(text), "docstring")


def _comments(module: str) -> Iterator[Prose]:
    path = PACKAGE / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    source = path.read_text("utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not re.match(r"# (?:type|fmt|noqa)", token.string):
            yield Prose(token.start[0], token.string.lstrip("# "), "comment")


def _messages(module: str) -> Iterator[Prose]:
    for sentence in sentences():
        place, _, line = sentence.where.rpartition(":")
        if place == module and sentence.text is not None:
            yield Prose(int(line), without_code(sentence.text), "message")


def in_prose(module: str, prose: Prose) -> Iterator[Finding]:
    """Yield the words and sentence openings in a text that the rules object to."""
    rules = dict(WORDS)
    if prose.kind in {"docstring", "comment"} and module.split(".")[0] != "demo":
        rules |= CODE_WORDS
    if "avx512" not in module and prose.kind != "document":
        rules |= NOT_IN_AVX512
    for pattern, advice in rules.items():
        for match in re.finditer(rf"\b(?:{pattern})\b", prose.text, re.IGNORECASE):
            yield _finding(module, prose, match.start(), match[0], advice)
    # A sentence starts at the beginning, after a full stop, and after the name of an argument.
    starts = r"(?:\A\s*|[.!?:]\s+|\n\s*\n\s*|\n\s*\*{0,2}\w+: )"
    for match in re.finditer(rf"{starts}((?:{OPENERS})\b[^.?!]*[.?!]?)", prose.text):
        if not match[1].endswith("?"):
            opening = " ".join(match[1].split()[:4])
            yield _finding(
                module, prose, match.start(1), opening, "name the subject of the sentence"
            )


def _finding(module: str, prose: Prose, start: int, text: str, advice: str) -> Finding:
    return Finding(module, prose.line + prose.text.count("\n", 0, start), text, advice)


def _first_lines(module: str, tree: ast.Module) -> Iterator[Finding]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if not isinstance(node, documented) or ast.get_docstring(node) is None:
            continue
        first = str(ast.get_docstring(node)).split("\n")[0]
        line = node.body[0].lineno
        is_function = _is_public_function(node)
        words = FUNCTION_FIRST_WORDS if is_function else FIRST_WORDS
        if re.match(rf"(?:{words})\b", first):
            advice = "an imperative sentence" if is_function else "a noun phrase"
            yield Finding(module, line, first, f"first line: {advice}")
        if is_function and re.match(r"\w*(?:[^s\W]s|'s)\b", first):
            yield Finding(module, line, first, "first line: an imperative verb first")
        if not re.match(r"[A-Z`\"\d]" if is_function else r"[A-Z`\"\d\[]", first):
            yield Finding(module, line, first, "first line: starts with a capital")
        if first[-1:] not in {".", "?"} and not isinstance(node, ast.Module):
            yield Finding(module, line, first, "first line: one sentence with a full stop")


def _is_public_function(node: ast.AST) -> bool:
    """Say whether a docstring is that of a public function, properties aside."""
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith("_"):
        return False
    return not any("property" in ast.unparse(one) for one in node.decorator_list)


def _identifiers(module: str, tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names = [node.name]
            if isinstance(node, ast.FunctionDef):
                names += [one.arg for one in [*node.args.args, *node.args.kwonlyargs]]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        else:
            continue
        for name in names:
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_")
            for pattern, advice in IDENTIFIERS.items():
                if any(re.fullmatch(pattern, word) for word in words):
                    yield Finding(module, node.lineno, name, f"name it {advice}")


def covers(name: str, module: str) -> bool:
    """Say whether ``name`` is the module, a package above it or, ``docs``, any document."""
    is_document = module.endswith(".md")
    return module == name or module.startswith(f"{name}.") or (name == "docs" and is_document)


def main(names: list[str]) -> None:
    """Print the findings in the named packages, modules and documents."""
    checks: list[tuple[str, Callable[[str], list[Finding]]]] = [
        *((module, findings) for module in sorted(modules())),
        *((name, document_findings) for name in documents()),
    ]
    found = [
        finding
        for module, check in checks
        if not names or any(covers(name, module) for name in names)
        for finding in check(module)
    ]
    print(*found, sep="\n")
    print(f"{len(found)} findings")


if __name__ == "__main__":
    main(sys.argv[1:])
