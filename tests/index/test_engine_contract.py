"""What every index engine must do: LanceDB, the local mode of Qdrant's client, and Qdrant's engine
in a server of its REST interface (``QDRANT_URL=http://host:6333`` names a real server instead).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bagformer_cli.config.scoring import MAXSIM, ScoreRule
from bagformer_cli.errors import InputError
from bagformer_cli.index.engine import Engine
from bagformer_cli.index.engines import create_engine, open_engine
from tests.support.index_rows import DIM, LAYOUT, OLD_LAYOUT, best, embeddings, query, rows

ENGINES = [
    "lance",
    pytest.param("qdrant-local", marks=pytest.mark.slow),
    pytest.param("qdrant", marks=pytest.mark.slow),
]


@pytest.fixture(params=ENGINES)
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place for an index."""
    if request.param == "lance":
        yield str(tmp_path / "index")
    elif request.param == "qdrant-local":
        pytest.importorskip("qdrant_client")
        yield f"qdrant://{tmp_path}/items"
    else:
        name = f"{request.getfixturevalue('qdrant_server')}/xmr-test-{uuid.uuid4().hex}"
        yield name
        from bagformer_cli.index.qdrant_connection import connect

        client, collection = connect(name)
        client.delete_collection(collection)


@pytest.fixture(scope="module")
def qdrant_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled local Qdrant, to be copied: filling one takes 1.5 s of fsync."""
    folder = tmp_path_factory.mktemp("qdrant")
    made = create_engine(f"qdrant://{folder}/items", LAYOUT)
    made.upsert(rows(range(40)))
    made.close()
    return folder


@pytest.fixture
def engine(uri: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An index of the products p0 … p39, those of a number that 4 divides without image."""
    if uri.startswith("qdrant:///"):
        folder = request.getfixturevalue("qdrant_folder")
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        made = open_engine(uri)
    else:
        made = create_engine(uri, LAYOUT)
        made.upsert(rows(range(40)))
    yield made
    made.close()


def found(engine: Engine, k: int = 100, where: str | None = None, seed: int = 0) -> list[str]:
    """The ids of an exact search by image, best first."""
    result = engine.recall("image", query(seed), k, where, "exact", candidates=k)
    assert result.final
    assert list(result.scores[0]) == sorted(result.scores[0], reverse=True)
    return [row["id"] for row in engine.fetch(result.keys[0], ["id"])]


def test_items_of_any_length_are_ranked_as_one_by_one(engine: Engine) -> None:
    for seed in range(5):
        expected = best(query(seed), range(40))
        assert found(engine, 10, seed=seed) == expected[:10]
        assert sorted(found(engine, 100, seed=seed)) == sorted(expected)  # all with an image


def test_titles_are_searched_separately(engine: Engine) -> None:
    result = engine.recall("title", query(), 5, None, "exact", candidates=5)
    names = [row["id"] for row in engine.fetch(result.keys[0], ["id"])]
    assert names == best(query(), range(40), offset=1)[:5]


def test_scores_are_late_interaction_scores(engine: Engine) -> None:
    asked = query()
    result = engine.recall("image", asked, 7, None, "exact", candidates=7)
    again = engine.late_interaction("image", asked, result.keys)
    np.testing.assert_allclose(result.scores[0], again[0], atol=0.02)


def test_single_vectors_find_candidates_for_the_late_interaction(engine: Engine) -> None:
    asked = query()
    result = engine.recall("image", asked, 5, None, "vector", candidates=30)
    if not result.final:
        scores = engine.late_interaction("image", asked, result.keys)[0]
        result.keys = [result.keys[0][np.argsort(-scores)][:5]]
    names = [row["id"] for row in engine.fetch(result.keys[0], ["id"])]
    assert names == best(asked, range(40))[:5]


@pytest.mark.parametrize(
    ("where", "numbers"),
    [
        ("price < 7", range(7)),
        ("category = '连衣裙'", range(0, 40, 3)),
        ("category = 'it''s'", range(2, 40, 3)),
        ("price >= 10 AND price < 20 AND category = 'T恤'", range(10, 20, 3)),
        ("price < 5 OR price > 35", [*range(5), *range(36, 40)]),
        ("NOT (price < 35)", range(35, 40)),
        ("category IN ('T恤', '连衣裙') AND price BETWEEN 3 AND 8", [3, 4, 6, 7]),
        ("stock IS NULL", range(0, 40, 5)),
        ("stock IS NOT NULL AND stock <= 6", [1, 2, 3, 4, 6]),
        ("NOT (stock > 3)", [1, 2, 3]),
        # A comparison with a missing value is neither true nor false; false AND unknown is false.
        ("NOT (stock = 1 AND category = 'no such')", range(40)),
        ("NOT (price > 5 AND stock > 9)", [*range(6), 6, 7, 8, 9]),
        ("NOT (price > 5 OR stock > 3)", [1, 2, 3]),
        ("NOT (NOT (stock <= 2))", [1, 2]),
        ("stock != 2 AND stock < 5", [1, 3, 4]),
        ("id = 'p17'", [17]),
        ("price > 1000", []),
    ],
)
def test_a_filter_selects_rows(engine: Engine, where: str, numbers: list[int]) -> None:
    assert engine.count(where) == len(numbers)
    assert found(engine, where=where) == best(query(), numbers)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("prize < 7", "price"),
        ("price <", "price < 200"),
        ("category = 5", "category: a text"),
        ("price < 7 price", "price < 200"),
        ("", "price < 200"),
    ],
)
def test_a_wrong_filter_is_named(engine: Engine, where: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        engine.recall("image", query(), 3, where, "exact", candidates=3)
    assert says in str(caught.value)
    with pytest.raises(InputError):
        engine.count(where)


@pytest.mark.parametrize("searched", [False, True])
def test_an_upsert_replaces(engine: Engine, searched: bool) -> None:
    if searched:  # a cache holds the old vectors
        engine.optimize()
        assert len(found(engine)) == 30
    assert engine.upsert(rows([5, 6, 41], seed=7)) == 2
    assert engine.count() == 41
    names = found(engine)
    assert len(names) == len(set(names)) == 31
    assert engine.count("id = 'p5'") == 1
    alone = engine.recall("image", query(), 1, "id = 'p5'", "exact", candidates=1)
    wanted = query().tensors.values
    expected = float((wanted @ embeddings(["p5"], seed=7)[0].T).amax(1).sum())
    assert alone.scores[0][0] == pytest.approx(expected, abs=0.02)


def test_the_ids_that_are_stored_are_known(engine: Engine) -> None:
    assert engine.stored(["p1", "nobody", "p39", "\udcff", "it's"]) == {"p1", "p39"}
    assert engine.stored([]) == set()


def test_removed_rows_are_gone(engine: Engine) -> None:
    assert engine.remove(["p1", "p2", "nobody"]) == 2
    assert engine.count() == 38
    assert not {"p1", "p2"} & set(found(engine))
    assert engine.remove(where="price >= 30") == 10
    assert sorted(found(engine)) == sorted(best(query(), range(3, 30)))
    engine.upsert(rows([1]))
    assert "p1" in found(engine)


def test_a_row_that_is_removed_during_a_search_stops_no_stage(engine: Engine) -> None:
    seen = engine.snapshot("image")
    for rule in (MAXSIM, ScoreRule(over_item=True)):
        asked = replace(query(), rule=rule)
        (keys,) = seen.recall("image", asked, 5, None, "exact", candidates=5).keys
        before = seen.late_interaction("image", asked, [keys])[0]
        names = [row["id"] for row in seen.fetch(keys, ["id"])]
        engine.remove(names[:1])
        after = seen.late_interaction("image", asked, [keys])[0]
        np.testing.assert_allclose(after[1:], before[1:], atol=1e-5)
        assert len(seen.mean_scores("image", asked, keys, after)) == 5
        left = [row["id"] for row in seen.fetch(keys, ["id"])]
        assert left[0] in (names[0], None)  # a snapshot still has it
        assert left[1:] == names[1:]


def test_ids_with_quotes(engine: Engine) -> None:
    batch = rows([50])
    named = pa.record_batch([pa.array(["o'clock; --"]), *batch.columns[1:]], schema=batch.schema)
    engine.upsert(named)
    assert "o'clock; --" in found(engine)
    assert engine.remove(["o'clock; --"]) == 1


def test_an_index_is_the_same_after_reopening(uri: str) -> None:
    first = create_engine(uri, LAYOUT)
    first.upsert(rows(range(40)))
    first.optimize()
    before = found(first)
    info = first.info()
    first.close()
    again = open_engine(uri)
    assert again.layout == LAYOUT
    assert found(again) == before
    assert again.count() == 40
    assert again.info()["sides"] == info["sides"] == {"image": 30, "title": 40}
    row = again.fetch(
        again.recall("image", query(), 1, "id = 'p7'", "exact", candidates=1).keys[0],
        ["id", "title", "image", "thumbnail", "price", "category", "stock"],
    )[0]
    assert row == {
        "id": "p7",
        "title": "标题 p7",
        "image": "p7.jpg",
        "thumbnail": b"p7",
        "price": 7.0,
        "category": "T恤",
        "stock": 7,
    }
    again.close()


def test_an_interrupted_add_stays_marked_until_the_same_source_is_complete(uri: str) -> None:
    engine = create_engine(uri, LAYOUT)

    def stop() -> None:
        with engine.filling("a.csv"):
            engine.upsert(rows(range(4)))
            raise KeyboardInterrupt

    assert not engine.incomplete
    with pytest.raises(KeyboardInterrupt):
        stop()
    with engine.filling("b.csv"):
        assert engine.unfinished_sources() == {"a.csv", "b.csv"}
    engine.close()
    again = open_engine(uri)
    assert again.unfinished_sources() == {"a.csv"}
    assert again.info()["unfinished"]
    with again.filling("a.csv"):
        pass
    assert not again.incomplete
    assert not again.info()["unfinished"]
    again.close()


def test_an_id_that_is_no_text_is_not_there(engine: Engine) -> None:
    assert engine.remove(["\udcff", "p1"]) == 1
    assert engine.count() == 39


def test_an_empty_index_finds_nothing(uri: str) -> None:
    engine = create_engine(uri, LAYOUT)
    assert found(engine) == []
    assert engine.count() == 0
    assert engine.remove(["p1"]) == 0
    engine.close()


def test_rows_that_do_not_fit_are_refused(engine: Engine) -> None:
    other = replace(LAYOUT, dim=DIM * 2)
    with pytest.raises(InputError, match="do not fit the index"):
        engine.upsert(rows([60], layout=other))
    with pytest.raises(InputError, match="another model"):
        engine.upsert(rows([60], layout=replace(LAYOUT, model="model-b")))
    with pytest.raises(InputError, match="do not fit the index"):
        engine.upsert(rows([60], layout=replace(LAYOUT, reduction={"pool": 4.0})))
    assert engine.count() == 40


def test_an_index_is_not_created_over_another(uri: str, engine: Engine) -> None:
    if uri.startswith("qdrant:///"):
        engine.close()  # local mode: one at a time
    with pytest.raises(InputError, match="already"):
        create_engine(uri, LAYOUT)


# ------------------------------------------------------------------------------- search by words


def with_terms(engine: Engine, *terms: str, k: int = 100, where: str | None = None) -> list[str]:
    """The ids of products with an image and some of these terms, best first."""
    hits = engine.find_terms("image", [dict.fromkeys(terms, 1.0)], k, where)[0]
    assert list(hits.scores) == sorted(hits.scores, reverse=True)
    return [row["id"] for row in engine.fetch(hits.keys, ["id"])]


def test_a_rare_term_counts_more_than_a_common_one(engine: Engine) -> None:
    names = with_terms(engine, "p17", "双")
    assert names[0] == "p17"
    assert sorted(names[1:]) == sorted(f"p{n}" for n in range(40) if n % 2 == 0 and n % 4)
    assert with_terms(engine, "no such term") == []


def test_a_weight_changes_the_order(engine: Engine) -> None:
    for heavy, light in (("p17", "p18"), ("p18", "p17")):
        hits = engine.find_terms("image", [{heavy: 1.0, light: 0.5}], 10, None)[0]
        assert [row["id"] for row in engine.fetch(hits.keys, ["id"])] == [heavy, light]
        assert hits.scores[0] == pytest.approx(2 * hits.scores[1], rel=0.01)


def test_several_queries_are_searched_by_words_one_by_one(engine: Engine) -> None:
    found = engine.find_terms("title", [{"p3": 1.0}, {"p4": 1.0, "p5": 1.0}], 10, None)
    names = [{row["id"] for row in engine.fetch(hits.keys, ["id"])} for hits in found]
    assert names == [{"p3"}, {"p4", "p5"}]


def test_only_products_with_the_side_and_of_the_filter_are_found_by_words(engine: Engine) -> None:
    assert with_terms(engine, "p4") == []  # it has no image
    assert sorted(with_terms(engine, "标题", where="price < 4")) == ["p1", "p2", "p3"]
    engine.optimize()
    assert len(with_terms(engine, "标题")) == 30
    assert len(with_terms(engine, "标题", k=7)) == 7


def test_terms_follow_upserts_and_removals(engine: Engine) -> None:
    assert with_terms(engine, "p50") == []
    engine.upsert(rows([50, 51]))
    assert with_terms(engine, "p50") == ["p50"]
    engine.optimize()
    assert with_terms(engine, "p50") == ["p50"]
    engine.remove(["p50"])
    assert with_terms(engine, "p50") == []
    batch = rows([51])
    changed = batch.set_column(
        batch.schema.get_field_index("title_terms"), "title_terms", pa.array(["新词"])
    )
    engine.upsert(changed.replace_schema_metadata(batch.schema.metadata))
    assert with_terms(engine, "p51") == []
    assert with_terms(engine, "新词") == ["p51"]
    engine.optimize()
    assert with_terms(engine, "新词") == ["p51"]


def test_terms_are_counted(engine: Engine) -> None:
    counts = engine.term_counts()
    assert counts["标题"] == 40
    assert counts["p7"] == 1
    assert counts["单"] == 20


def test_an_index_of_an_earlier_version_gets_terms(uri: str) -> None:
    made = create_engine(uri, OLD_LAYOUT)
    made.upsert(rows(range(8), layout=OLD_LAYOUT))
    made.optimize()
    before = found(made)
    with pytest.raises(InputError, match="no terms"):
        made.require_terms()
    assert made.fill_terms(lambda titles: [title.lower() for title in titles]) == 8
    assert made.layout.terms
    made.require_terms()
    assert with_terms(made, "p7") == ["p7"]
    assert made.fill_terms(lambda titles: [""] * len(titles)) == 0
    made.upsert(rows([9]))
    made.optimize()
    assert with_terms(made, "p9") == ["p9"]
    made.close()
    again = open_engine(uri)
    assert again.layout.terms
    assert with_terms(again, "p9") == ["p9"]
    assert [name for name in found(again) if name != "p9"] == before
    again.close()


def test_a_missing_index_is_named(uri: str) -> None:
    with pytest.raises(InputError, match="no index here"):
        open_engine(uri)


# ------------------------------------------------------------------- several processes at a time


def _start(what: str, uri: str, number: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.index_rows", what, uri, str(number)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )


def _many_processes(uri: str) -> None:
    if uri.startswith("qdrant:///"):
        pytest.skip("Qdrant's local mode is for one process at a time")


def test_a_killed_writer_loses_no_acknowledged_row(uri: str, engine: Engine) -> None:
    if uri.startswith("qdrant:///"):
        engine.close()
    with _start("forever", uri, 100) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(6)]
        writer.kill()
        acknowledged = int([*said, *writer.stdout][-1])
    again = open_engine(uri)
    names = set(found(again, 1000))
    assert {f"p{n}" for n in range(100, acknowledged) if n % 4} <= names
    assert {f"p{n}" for n in range(40) if n % 4} <= names
    again.upsert(rows([1000]))
    assert again.count("id = 'p1000'") == 1
    again.close()


@pytest.mark.slow
def test_a_reader_reads_while_a_writer_writes(uri: str, engine: Engine) -> None:
    _many_processes(uri)
    with _start("forever", uri, 100) as writer:
        assert writer.stdout is not None
        try:
            for _ in range(6):
                acknowledged = int(writer.stdout.readline())
                names = found(engine, 10_000)
                assert len(names) == len(set(names))
                assert {f"p{n}" for n in range(100, acknowledged) if n % 4} <= set(names)
        finally:
            writer.kill()


@pytest.mark.slow
def test_two_writers_leave_each_product_once(uri: str, engine: Engine) -> None:
    _many_processes(uri)
    writers = [_start("some", uri, seed) for seed in (1, 2)]
    for writer in writers:
        writer.communicate(timeout=60)
    assert [writer.returncode for writer in writers] == [0, 0]
    names = found(engine, 1000)
    assert sorted(names) == sorted(best(query(), range(40)))
    assert engine.count() == 40
