"""Measure hybrid search on catalogues with brands and model codes: nDCG@10 and CPU time.

Products are drawings of the demo. Each has a title of a seller, who leaves out half of the colours
and patterns, and adds a brand and a model code that no image shows. Buyers look for the appearance
(40 % of the queries), a brand and a kind (20 %), a brand and an appearance (25 %), or a model code
(15 %). So some queries need the image, some the title, some both. A demo model encodes the
drawings.

    catalogue   drawings                              products
    demo        the demo's test split, 360            360, one seller each
    shops       2,000 of combinations that are not    50,000: 25 sellers of each drawing
                in the model's training data

Prints a JSON line for each catalogue (also in ``report.json`` of the folder), then the table of
docs/performance.md. An index that is complete is not built again.

    xmr demo                        # trains the model, runs/demo
    python docs/experiments/hybrid.py runs/demo --folder build/hybrid
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.data.images import decode, resize
from bagformer_cli.demo.plan import Answers, Pictures, hold_out, plan_pictures, split_sizes
from bagformer_cli.demo.scene import Item, draw_picture
from bagformer_cli.demo.titles import BRANDS, buyer_query, evaluation_texts, seller_title
from bagformer_cli.evaluation.hybrid import HybridResult, JudgedQueries, measure_hybrid
from bagformer_cli.index.encode import EncodeOptions, layout_of
from bagformer_cli.index.engines import create_engine, open_engine
from bagformer_cli.index.row_columns import SideRows, to_rows
from bagformer_cli.index.search import Index
from bagformer_cli.index.search_options import SearchOptions
from bagformer_cli.index.terms import title_terms
from bagformer_cli.models.item_encoder import ItemEncoder
from bagformer_cli.models.load_encoder import load_encoder
from bagformer_cli.models.runs import find_checkpoint
from bagformer_cli.vectors.arrays import Vectors
from trials import markdown_table

OMITTED = 0.5
"""Share of the colours and patterns that titles leave out."""
BATCH = 64  # drawings encoded at once
TIMED, UNTIMED = 150, 20  # queries; the first ones compile code and read files
QUERY_KINDS = {"looks": 0.40, "brand": 0.20, "brand and looks": 0.25, "model code": 0.15}
"""Kind of query: its share of the queries."""
FUSIONS = ("rrf", "weighted")


@dataclass(frozen=True)
class Shop:
    """A generated catalogue.

    Args:
        pictures: Plan of the drawings.
        drawing: Position of each product's drawing.
        brands: The brand of each product.
        codes: The model code of each product.
        titles: The title of each product.
        seed: Random seed of the shop and of its drawings.
    """

    pictures: Pictures
    drawing: Sequence[int]
    brands: Sequence[str]
    codes: Sequence[str]
    titles: Sequence[str]
    seed: int


def make_shop(drawings: int, sellers: int, seed: int, data_seed: int) -> Shop:
    """Generate the products of a shop.

    Args:
        drawings: Number of drawings.
        sellers: Products of each drawing.
        seed: Random seed of brands, codes and titles, and of the drawings.
        data_seed: Seed of the demo set that trained the model. Combinations of kind, colour and
            pattern in its training split are not drawn.
    """
    pictures = plan_pictures("test", drawings, hold_out(data_seed), seed)
    rng = random.Random(f"{seed}/shop")
    names = [*BRANDS, *(_brand(rng) for _ in range(200))]
    drawing, brands, codes, titles = [], [], [], []
    for position in range(drawings):
        for _ in range(sellers):
            brand, code = rng.choice(names), _code(rng)
            things = [_partly(item, rng) for item in pictures.items(position)]
            goods = seller_title(things, bool(pictures.gifts[position]), rng)
            drawing.append(position)
            brands.append(brand)
            codes.append(code)
            titles.append(f"{brand}{rng.choice(('', ' ', '/'))}{goods} {code}")
    return Shop(pictures, drawing, brands, codes, titles, seed)


def make_queries(shop: Shop, count: int, seed: int) -> tuple[JudgedQueries, list[str]]:
    """Generate queries of buyers.

    Args:
        shop: The catalogue; every query is made from one of its products.
        count: Number of queries.
        seed: Random seed of the queries.

    Returns:
        The queries, each with all products that answer it, and the kind of each.
    """
    rng = random.Random(f"{seed}/queries")
    find = Answers(shop.pictures)
    of_drawing: dict[int, list[int]] = {}
    for number, position in enumerate(shop.drawing):
        of_drawing.setdefault(position, []).append(number)
    by_code: dict[str, list[int]] = {}
    for number, code in enumerate(shop.codes):
        by_code.setdefault(code, []).append(number)
    texts: list[str] = []
    answers: list[frozenset[str]] = []
    kinds: list[str] = []
    while len(texts) < count:
        number = rng.randrange(len(shop.titles))
        kind = rng.choices(list(QUERY_KINDS), list(QUERY_KINDS.values()))[0]
        text, named = evaluation_texts(shop.pictures.items(shop.drawing[number]), rng)[0]
        brand, code = shop.brands[number], shop.codes[number]
        if kind == "model code":
            text, numbers = _typed(code, rng), by_code[code]
        else:
            if kind == "brand":
                named = [(named[0][0], -1, -1, -1)]
                text = buyer_query(named, rng)
            numbers = [n for p in find.of(named).tolist() for n in of_drawing[p]]
            if kind != "looks":
                numbers = [n for n in numbers if shop.brands[n] == brand]
                text = f"{_typed(brand, rng)} {text}"
        if text not in texts:
            texts.append(text)
            answers.append(frozenset(f"p{n}" for n in numbers))
            kinds.append(kind)
    return JudgedQueries(texts, answers), kinds


def _partly(item: Item, rng: random.Random) -> Item:
    colour, pattern = (value if rng.random() > OMITTED else -1 for value in item[1:3])
    return item[0], colour, pattern, -1


def _brand(rng: random.Random) -> str:
    if rng.random() < 0.5:
        characters = "安柏彩橙达菲格禾家兰美诺沛琪瑞森唐薇希雅卓"
        return "".join(rng.choice(characters) for _ in range(rng.choice((2, 3))))
    return "".join(rng.choice(("bo", "ka", "lu", "mi", "ne", "ro", "sa", "ti", "vo", "xa"))
                   for _ in range(3)).upper()  # fmt: skip


def _code(rng: random.Random) -> str:
    letters = "".join(rng.choice("ABCDEFGHKLMNPQRSTXYZ") for _ in range(2))
    return f"{letters}-{rng.randrange(100, 9999)}{rng.choice(('', '', 'S', 'X'))}"


def _typed(text: str, rng: random.Random) -> str:
    """Write a brand or a code as a buyer types it: in lower case, without the hyphen."""
    if rng.random() < 0.5:
        text = text.lower()
    return text.replace("-", "") if rng.random() < 0.5 else text


def build_index(shop: Shop, encoder: ItemEncoder, model: Path, uri: Path) -> None:
    """Draw and encode the shop's products into an index, unless there is a complete one.

    Args:
        shop: The catalogue.
        encoder: The model.
        model: The folder of the model, which the index names.
        uri: Folder of the index.
    """
    if uri.exists() and not open_engine(str(uri)).incomplete:
        return
    options = EncodeOptions(sides=("image",), thumbnail=0)
    layout = layout_of(encoder, options, {}, str(model))
    engine = create_engine(str(uri), layout)
    sellers = len(shop.drawing) // len(shop.pictures)
    with engine.filling("hybrid"):
        for begin in range(0, len(shop.pictures), BATCH):
            positions = range(begin, min(begin + BATCH, len(shop.pictures)))
            drawn = [
                draw_picture(shop.pictures.items(at), random.Random(f"{shop.seed}/draw/{at}"), 64)
                for at in positions
            ]
            size = encoder.image_size
            pixels = np.stack([resize(decode(image), size) for image in drawn])
            encoded = encoder.encode_pixels(pixels)
            repeated = np.repeat(np.arange(len(drawn)), sellers)
            vectors = Vectors.concatenate(
                [encoded.vectors.one(at) for at in repeated.tolist()], layout.dim
            )
            single = encoded.single(layout.single_vector)[repeated]
            numbers = range(begin * sellers, begin * sellers + len(repeated))
            titles = [shop.titles[n] for n in numbers]
            products = [
                Product("hybrid", f"p{n}", None, None, title, {})
                for n, title in zip(numbers, titles, strict=True)
            ]
            rows = to_rows(
                layout,
                products,
                [None] * len(products),
                {"image": SideRows(np.ones(len(repeated), bool), vectors, single)},
                terms=title_terms(encoder.titles.segmenter, titles),
            )
            engine.upsert(rows)
    engine.optimize()
    engine.close()


def measure_time(index: Index, texts: Sequence[str], weight: float) -> dict[str, float]:
    """Measure the CPU time of a search by vectors alone and by both ways of fusion.

    Args:
        index: The index.
        texts: The queries.
        weight: Weight of the words in the weighted fusion, in [0, 1].

    Returns:
        Median milliseconds of each way, and the ratio of each fusion to ``vectors``.
    """
    ways: dict[str, SearchOptions] = {
        "vectors": SearchOptions(),
        "rrf": SearchOptions(fusion="rrf"),
        "weighted": SearchOptions(fusion="weighted", lexical_weight=weight),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number, text in enumerate(texts[:TIMED]):
        for name, options in ways.items():
            started = time.process_time()
            index.search_many([text], options)
            if number >= UNTIMED:
                taken[name].append(1000 * (time.process_time() - started))
    medians = {name: float(np.median(values)) for name, values in taken.items()}
    for name in FUSIONS:
        medians[f"{name} / vectors"] = medians[name] / medians["vectors"]
    return medians


def by_kind(result: HybridResult, kinds: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the mean nDCG@10 of each kind of query and each way to search, in percent."""
    chosen = np.array(kinds)
    return {
        kind: {
            name: 100 * float(values[chosen == kind].mean()) for name, values in result.ndcg.items()
        }
        for kind in QUERY_KINDS
    }


def results_table(reports: dict[str, dict[str, Any]]) -> list[str]:
    """Return a Markdown table of the reports, by name of the catalogue."""
    rows = []
    for name, report in reports.items():
        measured = report["ndcg@10"]
        cells = [
            f"{one['mean']:.1f} ({one['low']:.1f}–{one['high']:.1f})" for one in measured.values()
        ]
        rows.append([f"{name}, {report['products']:,} products", *cells])
        for kind, means in report["kinds"].items():
            rows.append([f"· {kind}", *(f"{value:.1f}" for value in means.values())])
        times = report["cpu_ms"]
        fused = [f"{times[way]:.1f} (× {times[f'{way} / vectors']:.2f})" for way in FUSIONS]
        rows.append(["· CPU ms per query", f"{times['vectors']:.1f}", "", *fused])
    return markdown_table(["", "vectors", "words", *FUSIONS], rows)


def main() -> None:
    """Measure both catalogues and print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="run or model folder of xmr demo")
    parser.add_argument(
        "--folder", type=Path, default=Path("build/hybrid"),
        help="folder of the indexes and the report (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--drawings", type=int, default=2000, help="drawings of the shops (default: 2000)"
    )
    parser.add_argument(
        "--sellers", type=int, default=25, help="products of each drawing (default: 25)"
    )
    parser.add_argument(
        "--queries", type=int, default=400,
        help="queries measured; as many others choose the weight (default: 400)",
    )  # fmt: skip
    parser.add_argument(
        "--data-seed", type=int, default=0,
        help="seed of the demo set that trained the model (default: 0)",
    )  # fmt: skip
    options = parser.parse_args()
    model = find_checkpoint(options.model)
    encoder = load_encoder(model, None)
    reports = {}
    shops = {
        "demo": (split_sizes(3000)["test"], 1),
        "shops": (options.drawings, options.sellers),
    }
    for name, (drawings, sellers) in shops.items():
        seed = options.data_seed if name == "demo" else 1
        shop = make_shop(drawings, sellers, seed, options.data_seed)
        uri = options.folder / f"{name}-{drawings}x{sellers}"
        build_index(shop, encoder, model, uri)
        index = Index(open_engine(str(uri)), encoder)
        tuning, _ = make_queries(shop, options.queries, seed=1)
        measured, kinds = make_queries(shop, options.queries, seed=2)
        result = measure_hybrid(index, tuning, measured)
        reports[name] = {
            "products": len(shop.titles),
            **result.to_json(),
            "kinds": by_kind(result, kinds),
            "cpu_ms": measure_time(index, measured.texts, result.weight),
        }
        print(json.dumps({name: reports[name]}, ensure_ascii=False), flush=True)
        (options.folder / "report.json").write_text(json.dumps(reports, ensure_ascii=False))
    print("\n".join(results_table(reports)))


if __name__ == "__main__":
    main()
