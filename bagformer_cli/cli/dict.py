"""``xmr dict``: look at, check and grow entity dictionaries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import (
    TITLES,
    Builtin,
    Columns,
    Lexicons,
    chosen_columns,
    chosen_lexicons,
)
from bagformer_cli.cli.views import warn_of_lexicon
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.text.segmenter import Segmenter

app = App(tr("Look at, check and grow entity dictionaries."))

SHOWN = 30


@contextmanager
def _segmenter(lexicons: list[str]) -> Iterator[tuple[Segmenter, Any]]:
    from bagformer_cli.text.lexicon import Lexicon
    from bagformer_cli.text.segmenter import Segmenter

    with bars.progress() as progress:
        lexicon = Lexicon.load(lexicons)
        warn_of_lexicon(lexicon)
        yield Segmenter(lexicon), progress


@app.command(
    help=tr(
        "Count the entries of dictionaries and, with --titles, how much of a file of titles they "
        "cover.\n\n"
        "    xmr dict stats\n\n"
        "    xmr dict stats mine.tsv --no-builtin --titles titles.txt"
    ),
    needs={"--column": ["--titles"]},
)
def stats(
    dictionaries: Annotated[
        list[str] | None, typer.Argument(help=tr("Further dictionaries."))
    ] = None,
    titles: Annotated[Path | None, typer.Option(help=TITLES)] = None,
    column: Columns = None,
    builtin: Builtin = True,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, count, print."""
    from collections import Counter

    from bagformer_cli.data.title_files import read_titles
    from bagformer_cli.data.title_sources import title_file
    from bagformer_cli.text.tools.check import Coverage, coverage
    from bagformer_cli.text.type_names import type_name

    lexicons = chosen_lexicons(builtin, dictionaries)
    covered: Coverage | None = None
    with _segmenter(lexicons) as (segmenter, progress):
        entries = list(segmenter.lexicon.entries())
        if titles is not None:
            chosen = chosen_columns(column)
            with title_file(titles, chosen=chosen, progress=progress) as file:
                covered = coverage(segmenter, read_titles(file), progress=progress)
    types = Counter(entry.type for entry in entries)
    lengths = Counter(len(entry.word) for entry in entries)
    origins = Counter(entry.origin.split(" ")[0] for entry in entries)
    found: dict[str, Any] = {
        "entries": len(entries),
        "types": {kind or "-": n for kind, n in types.most_common()},
        "lengths": dict(sorted(lengths.items())),
        "origins": dict(origins.most_common()),
    }
    if covered is not None:
        found["titles"] = {
            "count": covered.titles,
            "bags": dict(covered.bags),
            "characters": dict(covered.characters),
            "types": dict(covered.types.most_common()),
            "entries_used": covered.used,
            "unknown": dict(covered.unknown.most_common(SHOWN)),
        }

    def show() -> None:
        rows = [(type_name(kind), n) for kind, n in types.most_common()]
        console.table([tr("type"), tr("entries")], rows, title=tr("By type"))
        console.say()
        console.table([tr("origin"), tr("entries")], origins.most_common(), title=tr("By origin"))
        console.say()
        console.table([tr("characters"), tr("entries")], sorted(lengths.items())[:12])
        if covered is not None:
            _show_coverage(covered, len(entries))

    console.result(found, show)


def _show_coverage(covered: Any, entries: int) -> None:
    from bagformer_cli.text.type_names import source_names, type_name

    characters, bags = covered.characters.total(), covered.bags.total()
    rows = [
        (
            name,
            covered.bags[source],
            100 * covered.bags[source] / max(1, bags),
            100 * covered.characters[source] / max(1, characters),
        )
        for source, name in source_names().items()
    ]
    console.say()
    console.table(
        [tr("covered by"), tr("bags"), tr("% of bags"), tr("% of characters")],
        rows,
        title=tr("{n} titles", n=f"{covered.titles:,}"),
    )
    console.say()
    kinds = [(type_name(kind), n) for kind, n in covered.types.most_common()]
    console.table([tr("type"), tr("bags")], kinds, title=tr("Bags by type"))
    console.say()
    console.facts(
        {
            tr("bags per title"): bags / max(1, covered.titles),
            tr("entries that occur"): f"{covered.used:,} / {entries:,}",
        }
    )
    console.heading(tr("Most frequent pieces that no entry explains"))
    console.say(
        "  ".join(f"{piece} {count}" for piece, count in covered.unknown.most_common(SHOWN))
    )


@app.command(
    help=tr(
        "Find problems of dictionaries: lines that cannot be used, empty and repeated lines, "
        "entries that differ in width or case only, that never match, or that have another type "
        "elsewhere. Lines that cannot be used give exit code 2.\n\n"
        "    xmr dict check mine.tsv --repair mine.clean.tsv"
    )
)
def check(
    dictionaries: Annotated[list[Path], typer.Argument(help=tr("Dictionaries."))],
    builtin: Annotated[
        bool,
        typer.Option("--builtin/--no-builtin", help=tr("Compare with the built-in dictionaries.")),
    ] = True,
    repair: Annotated[
        Path | None,
        typer.Option(
            help=tr(
                "Write the first dictionary here, as UTF-8, without broken, empty and repeated "
                "lines."
            )
        ),
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help=tr("List every finding."))] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, check, print."""
    from collections import Counter

    from bagformer_cli.outputs import check_output
    from bagformer_cli.text.tools.check import check_dictionaries
    from bagformer_cli.text.tools.check import repair as write_repaired

    if repair is not None:
        check_output(repair, dictionaries)

    with bars.progress() as progress:
        findings = check_dictionaries(
            dictionaries, against=("builtin",) if builtin else (), progress=progress
        )
    counts = Counter(finding.kind for finding in findings)
    dropped = write_repaired(dictionaries[0], repair) if repair is not None else None
    names = {
        "broken": tr("broken line"),
        "untidy": tr("harmless"),
        "same": tr("the same entry in other characters"),
        "conflict": tr("another type elsewhere"),
        "unreachable": tr("never matches"),
    }

    def show() -> None:
        for kind, name in names.items():
            own = [finding for finding in findings if finding.kind == kind]
            if not own:
                continue
            console.heading(tr("{name} ({n})", name=name, n=f"{len(own):,}"))
            for finding in own if show_all else own[:SHOWN]:
                console.say(f"{finding.file}:{finding.line}  {finding.entry}  {finding.message}")
            if len(own) > SHOWN and not show_all:
                console.say(tr("… {n} more (--all lists them)", n=f"{len(own) - SHOWN:,}"))
        if not findings:
            console.say(tr("No problems found."))
        if dropped is not None:
            console.say()
            console.say(tr("Written without {n} lines: {path}", n=dropped, path=repair))

    found = {"findings": findings, "counts": counts, "repaired": repair, "dropped": dropped}
    console.result(found, show)
    if counts["broken"]:
        raise typer.Exit(2)


@app.command(
    help=tr(
        "Find words in a file of titles that the dictionaries lack. A word is kept if it is "
        "frequent, its parts occur together more often than at random, many different characters "
        "stand next to it, and it is no fragment of a known word. Check the example title and the "
        "guessed type of each. The file is read three times; memory does not grow with it.\n\n"
        "    xmr dict mine titles.txt --out mined.tsv --min-count 10"
    )
)
def mine(
    titles: Annotated[Path, typer.Argument(help=TITLES)],
    column: Columns = None,
    out: Annotated[Path | None, typer.Option(help=tr("The dictionary to write."))] = None,
    min_count: Annotated[
        int, typer.Option(min=2, help=tr("Minimum number of occurrences of an entry."))
    ] = 5,
    min_cohesion: Annotated[
        float,
        typer.Option(
            help=tr(
                "Minimum mutual information of its parts, in nats. Higher values keep fewer words."
            )
        ),
    ] = 4.0,
    min_freedom: Annotated[
        float,
        typer.Option(
            help=tr("Minimum entropy of its neighbours, in nats. Higher values keep fewer words.")
        ),
    ] = 0.9,
    most: Annotated[
        int | None, typer.Option(min=1, help=tr("Number of entries to keep, the best first."))
    ] = None,
    lexicon: Lexicons = None,
    builtin: Builtin = True,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, mine, print."""
    from bagformer_cli.data.title_files import read_titles
    from bagformer_cli.data.title_sources import title_file
    from bagformer_cli.outputs import check_output
    from bagformer_cli.text.tools.mine import MiningLimits
    from bagformer_cli.text.tools.mine import mine as find
    from bagformer_cli.text.tools.mined import write_mined
    from bagformer_cli.text.type_names import type_name

    if out is not None:
        check_output(out, [titles, *(lexicon or [])])
    limits = MiningLimits(count=min_count, cohesion=min_cohesion, freedom=min_freedom)
    with (
        _segmenter(chosen_lexicons(builtin, lexicon)) as (segmenter, progress),
        title_file(titles, chosen=chosen_columns(column), progress=progress) as file,
    ):
        result = find(lambda: read_titles(file), segmenter, limits, progress=progress)
    words = result.words[:most]
    if out is not None:
        write_mined(out, words, result.pieces, titles.name)

    def show() -> None:
        columns = [tr("word"), tr("type"), tr("count"), tr("example")]
        rows = [
            (word.word, type_name(word.type), word.count, _around(word.example, word.word))
            for word in words
        ]
        if rows:
            console.table(columns, rows if out is None else rows[:SHOWN])
        else:
            console.say(tr("No new words. Lower limits (--min-count …) or more titles find more."))
        if out is not None:
            console.say()
            console.say(tr("{n} entries written: {path}", n=f"{len(words):,}", path=out))

    console.result({"titles": result.titles, "words": words, "out": out}, show)


def _around(title: str, word: str) -> str:
    """Return the part of a title around a word."""
    from bagformer_cli.text.characters import fold

    at = max(0, fold(title).find(word))
    begin, end = max(0, at - 8), at + len(word) + 8
    return ("…" if begin else "") + title[begin:end] + ("…" if end < len(title) else "")


@app.command(
    help=tr(
        "Learn where bags begin and end from titles that you marked. The file that is written is "
        "used like a dictionary. Quality is measured on titles that are held out, then all titles "
        "are learned from.\n\n"
        "    xmr dict train marked.txt --out learned.safetensors\n\n"
        "    xmr bags '红色碎花连衣裙 2件装' --lexicon learned.safetensors\n\n"
        "A file of marked titles has one character and its tag (B-…, I-…, O) per line and an "
        "empty line after each title."
    )
)
def train(
    marked: Annotated[Path, typer.Argument(help=tr("Marked titles."))],
    out: Annotated[Path, typer.Option(help=tr("The file to write: NAME.safetensors."))],
    lexicon: Lexicons = None,
    builtin: Builtin = True,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, learn, print."""
    from bagformer_cli.outputs import check_output
    from bagformer_cli.text.bio import read_marked
    from bagformer_cli.text.boundaries import ENDING
    from bagformer_cli.text.tools.learn import HELD_OUT, held_out_quality, learn

    if out.suffix != ENDING:
        raise InputError(
            tr("Learned boundaries are a .safetensors file."),
            where="--out",
            found=out.name,
            expected=f"{out.stem}{ENDING}",
        )
    check_output(out, [marked, *(lexicon or [])])
    titles = read_marked(marked)
    with _segmenter(chosen_lexicons(builtin, lexicon)) as (segmenter, progress):
        before, after = held_out_quality(titles, segmenter.lexicon, progress)
        learn(titles, segmenter.lexicon, progress).save(out)
    found = {
        "out": out,
        "titles": len(titles),
        "held_out": {
            name: {"exact": quality.exact_share, "crossing": quality.crossing_share}
            for name, quality in (("before", before), ("after", after))
        },
    }

    def show() -> None:
        console.table(
            ["", tr("marked spans that are exactly one bag"), tr("bags that cross a boundary")],
            [
                (name, f"{quality.exact_share:.3f}", f"{quality.crossing_share:.3f}")
                for name, quality in ((tr("before"), before), (tr("learned"), after))
            ],
            title=tr(
                "Every {n}th title, held out: {spans} marked spans",
                n=HELD_OUT,
                spans=f"{before.spans.total():,}",
            ),
        )
        console.say()
        console.say(tr("Boundaries of {n} titles written: {path}", n=f"{len(titles):,}", path=out))

    console.result(found, show)
