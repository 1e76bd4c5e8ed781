"""The official prediction file: what is written passes, and every way to be wrong is caught."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bagformer_cli.data.muge import Query
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.evaluation.submission import check_submission, write_submission

QUERIES = [Query(7, "红色连衣裙", (100, 103)), Query(8, "保温杯", (109,)), Query(9, "围巾", (200,))]
FOUND = np.array([range(100, 110), range(100, 110), range(100, 110)])


def test_what_is_written_is_the_official_form_in_either_naming(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    write_submission(file, QUERIES[:1], FOUND[:1], "query")
    line = {"query_id": 7, "query_text": "红色连衣裙", "item_ids": list(range(100, 110))}
    assert file.read_text(encoding="utf-8") == json.dumps(line, ensure_ascii=False) + "\n"
    write_submission(file, QUERIES[:1], FOUND[:1], "text")
    assert list(json.loads(file.read_text(encoding="utf-8"))) == ["text_id", "text", "image_ids"]


def test_a_good_file_gets_its_score(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    write_submission(file, QUERIES, FOUND)
    checked = check_submission(file, QUERIES)
    assert (checked.naming, checked.n_queries, checked.unknown) == ("query", 3, ())
    assert checked.recall is not None
    assert checked.recall.hits == {1: 1, 5: 1, 10: 2}
    assert checked.recall.n == 3


def test_answers_kept_secret_give_no_score(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    secret = [Query(query.query_id, query.text, ()) for query in QUERIES]
    write_submission(file, secret, FOUND)
    assert check_submission(file, secret).recall is None
    assert check_submission(file).recall is None


def test_a_pool_of_fewer_than_ten_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    with pytest.raises(InputError, match="at least 10") as caught:
        write_submission(file, QUERIES, FOUND[:, :8])
    assert caught.value.found == "8 images"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("queries", "found", "message"),
    [
        (QUERIES, FOUND[:2], "exactly ten"),
        (QUERIES, np.hstack([FOUND, FOUND + 50]), "exactly ten"),
        (QUERIES, FOUND // 2, "different images"),
        ([QUERIES[0]] * 3, FOUND, "once"),
    ],
)
def test_what_would_be_rejected_is_not_written(
    queries: list[Query], found: np.ndarray, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        write_submission(tmp_path / "out.jsonl", queries, found)
    assert list(tmp_path.iterdir()) == []


def test_ids_that_are_no_integers_are_a_type_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="integers"):
        write_submission(tmp_path / "out.jsonl", QUERIES, FOUND.astype(float))


GOOD: dict[str, Any] = {"text_id": 8, "text": "x", "image_ids": list(range(10))}


def with_item(value: Any) -> dict[str, Any]:
    return {**GOOD, "image_ids": [*range(9), value]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "blank"),
        ("   ", "blank"),
        ("{oops", "not JSON"),
        ("\ufeff" + json.dumps(GOOD), "byte-order mark"),
        ("[1, 2]", "not an object"),
        ("null", "not an object"),
        ('{"text_id": 1, "text_id": 2}', "repeated"),
        ({**GOOD, "text_id": "8"}, "'text_id' is not a whole number"),
        ({**GOOD, "text_id": True}, "'text_id' is not a whole number"),
        ({**GOOD, "text_id": 8.0}, "'text_id' is not a whole number"),
        ({**GOOD, "text_id": None}, "'text_id' is not a whole number"),
        ({**GOOD, "text_id": -1}, "'text_id' is not a whole number"),
        ({"image_ids": list(range(10))}, "'text_id' is missing"),
        ({"text_id": 8}, "'image_ids' is missing"),
        ({"text_id": 8, "image_id": list(range(10))}, "Did you mean image_id?"),
        ({"query_id": 8, "item_ids": list(range(10))}, "'text_id' is missing"),
        ({**GOOD, "image_ids": "0123456789"}, "not a list"),
        ({**GOOD, "image_ids": {str(i): i for i in range(10)}}, "not a list"),
        ({**GOOD, "image_ids": list(range(9))}, "wrong number of images. (found: 9"),
        ({**GOOD, "image_ids": list(range(11))}, "wrong number of images. (found: 11"),
        ({**GOOD, "image_ids": []}, "wrong number of images. (found: 0"),
        (with_item(0), "same image twice. (found: 0, at 1 and 10"),
        (with_item("9"), "Image 10 of query 8 is not a whole number"),
        (with_item(9.0), "Image 10 of query 8 is not a whole number"),
        (with_item(True), "Image 10 of query 8 is not a whole number"),
        (with_item(None), "Image 10 of query 8 is not a whole number"),
        (with_item(2**63), "Image 10 of query 8 is not a whole number"),
        (with_item(77), "Image 10 of query 8 is not in the pool"),
        ({**GOOD, "text_id": 7}, "query 7 is answered twice. (found: first on line 1"),
    ],
)
def test_a_wrong_line_is_named_with_file_and_line(line: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "prediction.jsonl"
    text = line if isinstance(line, str) else json.dumps(line)
    file.write_text(json.dumps({**GOOD, "text_id": 7}) + "\n" + text + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        check_submission(file, pool=range(12))
    assert caught.value.where == f"{file}:2"
    assert caught.value.exit_code == 2


def test_all_wrong_lines_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "prediction.jsonl"
    file.write_bytes(b"{}\n\xff\n\n")
    with pytest.raises(DataError, match="2 more lines") as caught:
        check_submission(file)
    assert caught.value.where == f"{file}:1"


def test_queries_without_a_line_are_named(tmp_path: Path) -> None:
    file = tmp_path / "prediction.jsonl"
    write_submission(file, QUERIES[:1], FOUND[:1])
    with pytest.raises(DataError, match="2 of 3 missing: 8, 9"):
        check_submission(file, QUERIES)
    file.write_text("")
    with pytest.raises(DataError, match="empty"):
        check_submission(file, QUERIES)


def test_queries_of_another_split_are_reported(tmp_path: Path) -> None:
    file = tmp_path / "prediction.jsonl"
    write_submission(file, QUERIES, FOUND)
    assert check_submission(file, QUERIES[:2]).unknown == (9,)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl"):
        check_submission(tmp_path / "none.jsonl")


# ------------------------------------------------------ what the public evaluation script says

Lines = list[Any]
WRONGLY_GOOD = {"repeated_text_id", "image_id_bool", "text_id_bool", "gt_repeated_text"}
"""What the public script lets through by mistake and this check does not."""


def fifth(**changes: Any) -> Callable[[Lines], Lines]:
    return lambda lines: [*lines[:4], {**lines[4], **changes}, *lines[5:]]


def tenth(value: Any) -> Callable[[Lines], Lines]:
    return lambda lines: fifth(image_ids=[*lines[4]["image_ids"][:9], value])(lines)


def without(field: str) -> Callable[[Lines], Lines]:
    return lambda lines: [*lines[:4], {k: v for k, v in lines[4].items() if k != field}, *lines[5:]]


def answer(text_id: int, first: int = 900000) -> dict[str, Any]:
    return {"text_id": text_id, "image_ids": list(range(first, first + 10))}


PREDICTIONS: dict[str, Callable[[Lines], Lines]] = {
    "good": lambda lines: lines,
    "duplicate_image_ids": lambda lines: tenth(lines[4]["image_ids"][0])(lines),
    "nine_ids": lambda lines: fifth(image_ids=lines[4]["image_ids"][:9])(lines),
    "eleven_ids": lambda lines: fifth(image_ids=[*lines[4]["image_ids"], 1])(lines),
    "missing_query": lambda lines: lines[:4] + lines[5:],
    "two_missing_queries": lambda lines: lines[:3] + lines[5:],
    "extra_query": lambda lines: [*lines, answer(999999)],
    "repeated_text_id": lambda lines: [*lines, answer(lines[0]["text_id"])],
    "text_id_string_first_line": lambda lines: [{**lines[0], "text_id": "5000"}, *lines[1:]],
    "text_id_string_later_line": fifth(text_id="5004"),
    "image_id_string": tenth("900147"),
    "image_id_float": tenth(900147.0),
    "image_id_bool": tenth(True),
    "text_id_bool": lambda lines: [*lines, {**answer(0), "text_id": True}],
    "no_text_id": without("text_id"),
    "no_image_ids": without("image_ids"),
    "image_ids_not_list": fifth(image_ids="0123456789"),
    "not_json": lambda lines: [*lines[:4], "{oops", *lines[5:]],
    "blank_line": lambda lines: [*lines[:4], "", *lines[4:]],
    "json_not_object": lambda lines: [*lines, [1, 2]],
    "empty_prediction": lambda lines: [],
}
TRUTHS: dict[str, tuple[Lines, Lines]] = {  # ground truth, prediction
    "empty_ground_truth": ([], [answer(5000)]),
    "gt_blank_line": (
        [{"text_id": 5000, "text": "a", "image_ids": [900000]}, "", answer(5001)],
        [answer(5000), answer(5001)],
    ),
    "gt_empty_positives": (
        [
            {"text_id": 5000 + i, "text": "a", "image_ids": ids}
            for i, ids in enumerate([[900004], [900007], [], [1]])
        ],
        [answer(5000 + i) for i in range(4)],
    ),
    "gt_repeated_text": (
        [
            {"text_id": text_id, "text": "a", "image_ids": [900000]}
            for text_id in (5000, 5001, 5002, 5000)
        ],
        [answer(5000 + i) for i in range(3)],
    ),
    "gt_no_text_id": ([{"text": "a", "image_ids": [900000]}], [answer(5000)]),
    "gt_string_ids": ([{"text_id": "5000", "text": "a", "image_ids": [1]}], [answer(5000)]),
}


def dump(path: Path, lines: Lines) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


@pytest.mark.shared
def test_every_case_of_the_public_script_gets_its_verdict(shared: Path, tmp_path: Path) -> None:
    folder = shared / "reference/muge"
    cases = json.loads((folder / "evaluation_py.json").read_text(encoding="utf-8"))
    text = (folder / "prediction.jsonl").read_text(encoding="utf-8")
    good = [json.loads(line) for line in text.splitlines()]
    assert set(cases) == {*PREDICTIONS, *TRUTHS, "no_file"}
    for name, case in cases.items():
        truth = folder / "ground_truth.jsonl"
        if name == "no_file":
            prediction = tmp_path / "none.jsonl"
        elif name in TRUTHS:
            truth = dump(tmp_path / "truth.jsonl", TRUTHS[name][0])
            prediction = dump(tmp_path / "prediction.jsonl", TRUTHS[name][1])
        else:
            prediction = dump(tmp_path / "prediction.jsonl", PREDICTIONS[name](good))
        verdict = case["output"]
        if verdict["success"] and name not in WRONGLY_GOOD:
            recall = check_submission(prediction, truth).recall
            assert recall is not None, name
            figures = recall.percent()
            expected = verdict["scoreJson"]
            assert figures["mean_recall"] == pytest.approx(expected["mean_recall"], rel=1e-12)
            assert [figures[f"recall@{k}"] for k in (1, 5, 10)] == pytest.approx(
                [expected[k] for k in ("r1", "r5", "r10")], rel=1e-12
            )
        else:
            with pytest.raises(InputError):
                check_submission(prediction, truth)
