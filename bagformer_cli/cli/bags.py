"""``xmr bags``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import (
    TITLES,
    Builtin,
    Columns,
    Encoding,
    Lexicons,
    SheetName,
    chosen_columns,
    chosen_lexicons,
)
from bagformer_cli.cli.views import show_bag_legend, show_bags, warn_of_lexicon
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.text.bags import TitleEncoder
    from bagformer_cli.text.bio import MarkedTitle
    from bagformer_cli.text.segmenter import Bag

app = App()

TITLE_FILES = (".txt", ".csv", ".tsv", ".jsonl", ".xlsx")


@app.command(
    help=tr(
        "Cut titles into entity bags. Titles come from the command line, from a file with one "
        "title per line, or from a table. With --gold, the bags are compared with marked titles."
        "\n\n"
        "    xmr bags '红色碎花连衣裙 2件装'\n\n"
        "    xmr bags --input titles.txt --output bags.jsonl --lexicon mine.tsv\n\n"
        "    xmr bags --input products.csv --column title=款名 --output bags.jsonl\n\n"
        "    xmr bags --gold marked.txt --show-errors 20\n\n"
        "A file of marked titles has one character and its tag (B-…, I-…, O) per line and an "
        "empty line after each title. Given as --lexicon, its marked words are entries.\n\n"
        "Without colours (in a pipe, with NO_COLOR), titles are shown as tables, and those of a "
        "file as one line each: 红色/colour 连衣裙/category"
    ),
    needs={
        "--show-errors": ["--gold"],
        **{name: ["--input"] for name in ("--workers", "--column", "--encoding", "--sheet")},
    },
    apart=[("titles", "--gold"), ("titles", "--input"), ("--output", "--gold")],
)
def bags(
    titles: Annotated[list[str] | None, typer.Argument(help=tr("Titles."))] = None,
    source: Annotated[
        Path | None,
        typer.Option("--input", help=TITLES),
    ] = None,
    column: Columns = None,
    encoding: Encoding = "utf-8",
    sheet: SheetName = None,
    output: Annotated[
        Path | None, typer.Option(help=tr("Write JSON lines here instead of showing them."))
    ] = None,
    lexicon: Lexicons = None,
    builtin: Builtin = True,
    gold: Annotated[
        Path | None,
        typer.Option(help=tr("Marked titles: compare the bags with the marked spans.")),
    ] = None,
    show_errors: Annotated[
        int, typer.Option(min=0, help=tr("With --gold: number of errors of each kind to show."))
    ] = 0,
    tokenizer: Annotated[
        str,
        typer.Option(
            help=tr("A vocab.txt, model folder or hub name: no bag ends inside a token of it.")
        ),
    ] = "builtin",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help=tr("Processes for a large file. Default: one per core."), show_default=""
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, segment, print."""
    given = [*(titles or [])]
    if not given and source is None and gold is None:
        raise InputError(
            tr("There is no title."),
            expected=tr("titles on the command line, --input or --gold"),
        )
    for title in given:
        if not title.strip():
            raise InputError(
                tr("A title is empty."),
                found=repr(title),
                expected=tr("at least one visible character"),
            )
        if title.endswith(TITLE_FILES) and Path(title).is_file():
            console.warn(
                tr(
                    "'{name}' is taken as a title. The titles in the file of this name: "
                    "xmr bags --input {name}",
                    name=title,
                )
            )
    lexicons = chosen_lexicons(builtin, lexicon)
    from bagformer_cli.data.title_files import bag_encoder
    from bagformer_cli.outputs import check_output

    if output is not None:
        check_output(output, [path for path in (source, gold, *lexicons, tokenizer) if path])

    warn_of_lexicon(bag_encoder(tokenizer, tuple(lexicons)).segmenter.lexicon)

    if gold is not None:
        _compare(gold, source, lexicons, tokenizer, show_errors)
        return
    if source is not None:
        from bagformer_cli.data.title_sources import title_file

        chosen = chosen_columns(column)
        with (
            bars.progress() as progress,
            title_file(source, encoding, chosen=chosen, sheet=sheet, progress=progress) as file,
        ):
            given += _of_file(file, output, lexicons, tokenizer, workers)
    if given:
        _show(given, bag_encoder(tokenizer, tuple(lexicons)), output)


def _of_file(
    source: Path, output: Path | None, lexicons: list[str], tokenizer: str, workers: int | None
) -> list[str]:
    """Stream the bags of a file; marked titles come back to be shown as titles given by hand."""
    from itertools import islice

    from bagformer_cli.data.title_files import bag_lines, read_titles
    from bagformer_cli.machine import usable_cores
    from bagformer_cli.outputs import output_file
    from bagformer_cli.text.bio import looks_marked, read_marked

    if looks_marked(list(islice(read_titles(source), 200))):
        return [title.text for title in read_marked(source)]
    with bars.progress() as progress:
        pieces = bag_lines(
            source, tokenizer, lexicons, workers=workers or usable_cores(), progress=progress
        )
        if output is not None:
            count = 0
            with output_file(output) as temporary, open(temporary, "w", encoding="utf-8") as out:
                for piece in pieces:
                    out.write(piece)
                    count += piece.count("\n")
            _written(output, count)
            return []
        for piece in pieces:
            _print_lines(piece)
    return []


def _print_lines(lines: str) -> None:
    """Show JSON lines as they are, or as titles with their bags."""
    import json
    from types import SimpleNamespace

    if console.wants_json():
        console.print_json_lines(lines.rstrip("\n"))
        return
    for line in lines.rstrip("\n").split("\n"):  # not splitlines: a title may hold U+2028
        bags = [SimpleNamespace(**bag) for bag in json.loads(line)["bags"]]
        if console.has_colours():
            show_bags(bags)
        else:
            console.say(" ".join(f"{bag.text}/{bag.type or '-'}" for bag in bags))


def _written(output: Path, count: int) -> None:
    console.result(
        {"output": output, "titles": count},
        lambda: console.say(tr("{n} titles written: {path}", n=f"{count:,}", path=output)),
    )


def _show(titles: Sequence[str], encoder: TitleEncoder, output: Path | None) -> None:
    import json

    from bagformer_cli.data.title_files import record
    from bagformer_cli.outputs import write_output

    found = encoder.bags_batch(titles, whole=True)
    if output is not None:
        lines = [
            json.dumps(record(title, bags), ensure_ascii=False)
            for title, bags in zip(titles, found, strict=True)
        ]
        write_output(output, "".join(f"{line}\n" for line in lines))
        _written(output, len(lines))
        return
    for title, bags in zip(titles, found, strict=True):
        if console.wants_json():
            console.print_json(record(title, bags))
        elif console.has_colours():
            show_bags(bags)
        else:
            _show_table(title, bags)
    if not console.wants_json():
        show_bag_legend()


def _show_table(title: str, bags: Sequence[Bag]) -> None:
    """Print the bags of a title and what colours would say: their types and where they are from."""
    from bagformer_cli.text.type_names import source_names, type_name

    sources = source_names()
    rows = [(bag.text, type_name(bag.type), sources[bag.source]) for bag in bags]
    console.table([tr("bag"), tr("type"), tr("source")], rows, title=title)


def _compare(
    gold: Path, source: Path | None, lexicons: list[str], tokenizer: str, show_errors: int
) -> None:
    """Compare bags with marked spans, and with longest matching over the same entries."""
    from bagformer_cli.data.title_files import bag_encoder
    from bagformer_cli.text.bio import read_marked
    from bagformer_cli.text.tools.quality import longest_match, measure

    marked = read_marked(gold)
    _same_titles(marked, source, gold)
    texts = [title.text for title in marked]
    encoder = bag_encoder(tokenizer, tuple(lexicons))
    covers = encoder.bags_batch(texts, whole=True)
    quality = measure(marked, covers)
    tokens = encoder.tokenizer.encode_batch(texts)
    spans = list(zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True))
    pieces = [spans[tokens.offsets[i] : tokens.offsets[i + 1]] for i in range(len(texts))]
    rows: list[tuple[str, Any]] = [(tr("xmr"), quality)]
    for name, direction in (
        (tr("forward longest match, same entries"), "forward"),
        (tr("backward longest match, same entries"), "backward"),
    ):
        others = (
            longest_match(text, own, encoder.segmenter.lexicon, direction)  # type: ignore[arg-type]
            for text, own in zip(texts, pieces, strict=True)
        )
        rows.append((name, measure(marked, others)))
    labels = sorted(quality.spans)
    found = {
        "gold": gold,
        "titles": len(marked),
        "spans": quality.spans.total(),
        "exact": quality.exact_share,
        "crossing": quality.crossing_share,
        "labels": {
            label: {"spans": quality.spans[label], "exact": quality.exact[label]}
            for label in labels
        },
        "missed": {
            reason: sum(n for (_, why), n in quality.missed.items() if why == reason)
            for reason in ("split", "inside", "shifted")
        },
        "baselines": {
            name: {"exact": other.exact_share, "crossing": other.crossing_share}
            for name, other in rows[1:]
        },
    }

    def show() -> None:
        console.table(
            ["", tr("marked spans that are exactly one bag"), tr("bags that cross a boundary")],
            [(name, f"{q.exact_share:.3f}", f"{q.crossing_share:.3f}") for name, q in rows],
        )
        console.say()
        console.table(
            [tr("label"), tr("spans"), tr("exact"), tr("cut apart"), tr("inside"), tr("shifted")],
            [
                (
                    label,
                    quality.spans[label],
                    f"{quality.exact[label] / quality.spans[label]:.3f}",
                    *(quality.missed[label, why] for why in ("split", "inside", "shifted")),
                )
                for label in labels
            ],
        )
        names = {
            "split": tr("made of several bags"),
            "inside": tr("inside a larger bag"),
            "shifted": tr("a boundary elsewhere"),
            "crossing": tr("bags that cross a boundary"),
        }
        for reason, examples in sorted(quality.examples.items()) if show_errors else ():
            console.heading(tr("{name} ({n})", name=names[reason], n=f"{len(examples):,}"))
            step = max(1, len(examples) // show_errors)
            for number, start, end in examples[::step][:show_errors]:
                console.say(_excerpt(texts[number], start, end, covers[number]))

    console.result(found, show)


def _excerpt(title: str, start: int, end: int, bags: Sequence[Bag]) -> str:
    """A stretch of a title and the bags that meet it."""
    met = "│".join(bag.text for bag in bags if bag.start < end and start < bag.end)
    around = f"{title[max(0, start - 5) : start]}[{title[start:end]}]{title[end : end + 5]}"
    return f"  {around}  →  {met}"


def _same_titles(marked: Sequence[MarkedTitle], source: Path | None, gold: Path) -> None:
    """Check that --input holds the titles of --gold, if both are given."""
    from itertools import islice, zip_longest

    from bagformer_cli.data.title_files import read_titles
    from bagformer_cli.text.bio import looks_marked, read_marked

    if source is None:
        return
    if looks_marked(list(islice(read_titles(source), 200))):
        titles = iter([title.text for title in read_marked(source)])
    else:
        titles = read_titles(source)
    for number, (title, own) in enumerate(zip_longest(titles, marked), 1):
        if own is None or title != own.text:
            raise InputError(
                tr("--input and --gold do not hold the same titles."),
                where=f"{source}:{number}",
                found=title,
                expected=own.text if own else tr("the end, as in {gold}", gold=gold),
            )
