"""F30: numbers, types and shapes out of range are refused, or give right scores."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest

from tests.support.black_box import (
    Shop,
    assert_no_bug,
    assert_refused,
    environment,
    is_named,
    process,
    program,
)
from tests.support.small_model import TINY, set_options

SETS = set_options(*TINY, "training.batch_size=4")


def nan_model(model: Path, folder: Path) -> Path:
    """Copy a model folder and fill one of its weights with NaN."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    copytree(model, folder)
    path = folder / "model.safetensors"
    with safe_open(path, "np") as stream:
        metadata = stream.metadata()
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    for name, value in tensors.items():
        if value.dtype == np.float32 and value.ndim >= 2:
            tensors[name] = np.full_like(value, np.nan)
    save_file(tensors, path, metadata)
    return folder


@pytest.mark.parametrize("command", ["index build", "encode", "score", "search", "eval"])
def test_f21_and_f30_a_model_with_nan_is_named_not_the_index(
    shop: Shop, home: Path, command: str
) -> None:
    table = shop.write("t.csv", "id,image,title\na0,p0.jpg,红裙\na1,p1.jpg,蓝裤\n")
    broken = nan_model(shop.model, shop.folder / "nan")
    if command == "search":
        shop.built(table)
    run = {
        "index build": lambda: shop.xmr("index", "build", table, shop.index, "--checkpoint",
                                        broken),
        "encode": lambda: shop.xmr("encode", table, "--out", shop.folder / "v", "--checkpoint",
                                   broken),
        "score": lambda: shop.xmr("score", "p0.jpg", "红", "--checkpoint", broken, "--json"),
        "search": lambda: shop.xmr("search", "红", "--index", shop.index, "--checkpoint", broken),
        "eval": lambda: shop.xmr("eval", "--dataset", "set", "--checkpoint", broken, "--json"),
    }[command]()  # fmt: skip
    assert_no_bug(run)
    assert "damaged" not in run.err
    assert run.code != 0
    assert "model" in run.err


# F30: the small ones.
@pytest.mark.parametrize("dim", [1, 2, 3, 5, 16, 17])
def test_f30_int8_scores_as_float_in_any_dimension(retriever: Any, dim: int) -> None:
    import torch

    from bagformer_cli.interaction.maxsim import maxsim

    multi_vectors = type(retriever.encode_texts(["红"]))
    random = torch.Generator().manual_seed(dim)

    def drawn(count: int, length: int) -> tuple[Any, Any]:
        values = torch.randint(-127, 128, (count * length, dim), generator=random)
        offsets = torch.arange(0, count * length + 1, length)
        scales = torch.full((count,), 1 / 127)
        exact = multi_vectors(values.float() / 127, offsets)
        return multi_vectors(values.to(torch.int8), offsets, scales), exact

    (texts, plain_texts), (images, plain_images) = drawn(40, 7), drawn(50, 13)
    for found, exact in zip(maxsim(texts, images), maxsim(plain_texts, plain_images), strict=True):
        assert torch.allclose(found.float(), exact.float(), atol=1e-3 * dim)
    for found, exact in zip(
        maxsim(plain_texts, images), maxsim(plain_texts, plain_images), strict=True
    ):
        assert torch.allclose(found.float(), exact.float(), atol=0.05 * dim)


def test_f30_a_model_of_one_dimension_is_refused_or_scores_as_float(
    xmr: Callable[..., Any], home: Path
) -> None:
    run = xmr("train", "--config", "demo", "--dataset", "set", "--output-dir", "r", *SETS,
              "--set", "model.embed_dim=1", "--set", "training.max_steps=1")  # fmt: skip
    if run.code:
        assert_refused(run, "embed_dim")
        return
    scores = {}
    for dtype in ("int8", "float32"):
        built = xmr("index", "build", "t.csv", f"i-{dtype}", "--checkpoint", "r", "--dtype", dtype)
        assert built.code == 0, built.err
        found = xmr("search", "红裙", "--index", f"i-{dtype}", "-k", 100, "--json").json()
        scores[dtype] = {hit["id"]: hit["score"] for hit in found["results"][0]["hits"]}
    assert scores["int8"] == pytest.approx(scores["float32"], abs=0.1)


@pytest.mark.parametrize("weight", ["1e-320", "1e-400", "1e400", "inf", "nan", "-1", "0", "1e308"])
def test_f30_a_weight_out_of_range_is_refused_or_harmless(
    xmr: Callable[..., Any], home: Path, weight: str
) -> None:
    (home / "w.tsv").write_text(f"色连\tname\t{weight}\n红色\tcolor\t100\n连衣裙\tcategory\t100\n")
    run = xmr("bags", "红色连衣裙", "--lexicon", "w.tsv", "--no-builtin", "--json")
    assert_no_bug(run)
    assert "RuntimeWarning" not in run.err
    if run.code:
        assert_refused(run, "w.tsv")
    else:
        bags = [bag["text"] for bag in run.lines()[0]["bags"]]
        assert bags == ["红色", "连衣裙"] or weight in ("1e308",)


def test_f30_an_entry_with_a_carriage_return_breaks_no_dictionary(
    xmr: Callable[..., Any], home: Path
) -> None:
    (home / "w.txt").write_bytes("红\r色\n连衣裙\n".encode())
    run = xmr("bags", "连衣裙", "--lexicon", "w.txt", "--no-builtin", "--json")
    assert_no_bug(run)
    if run.code == 0:
        assert [bag["text"] for bag in run.lines()[0]["bags"]] == ["连衣裙"]
        train = xmr("train", "--config", "demo", "--dataset", "set", "--output-dir", "r", *SETS,
                    "--set", "text.lexicons=[w.txt]", "--set", "training.max_steps=1")  # fmt: skip
        assert train.code == 0, train.err
        assert xmr("score", "p0.jpg", "连衣裙", "--checkpoint", "r").code == 0


@pytest.mark.parametrize("value", ["null", "true", "[1]", '{"a": 1}', "1.5", '""', "[]"])
def test_f30_an_id_of_another_type_is_named_or_generated(shop: Shop, value: str) -> None:
    table = shop.write(
        "t.jsonl",
        f'{{"id": {value}, "image": "p0.jpg", "title": "红裙"}}\n'
        '{"id": "a1", "image": "p1.jpg", "title": "蓝裤"}\n',
    )
    run = shop.build(table)
    assert_no_bug(run)
    assert run.code == 0, run.err
    found = set(shop.products())
    assert not found & {"None", "True", "[1]", "{'a': 1}", "", "[]"}
    assert len(found) == 2 or is_named(run.json()["skipped"], 1, "t.jsonl:1")


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [b"[" * 5000 + b"]" * 5000, b'{"x": ' * 5000 + b"1" + b"}" * 5000, b"9" * 5000, b"\xff\xfe",
     b"null", b'{"image_id": ' + b"9" * 5000 + b"}"],
    ids=["lists", "maps", "digits", "no text", "null", "a long id"],
)  # fmt: skip
def test_f30_records_of_an_lmdb_are_refused_in_time(home: Path, content: bytes) -> None:
    lmdb = pytest.importorskip("lmdb")
    for name, records in {
        "pairs": {b"0": content, b"num_samples": content if content.isdigit() else b"1"},
        "imgs": {b"1": b"AAAA", b"num_images": b"1"},
    }.items():
        folder = home / "lmdb/train" / name
        folder.mkdir(parents=True)
        with lmdb.open(str(folder), map_size=1 << 20) as opened, opened.begin(write=True) as write:
            for key, value in records.items():
                write.put(key, value)
    ended = process("data", "import", "lmdb", "--out", "o", cwd=home, timeout=240, cpu=60)
    assert ended.code == 2, (ended.code, ended.err[-300:])
    assert_no_bug(ended)
    assert len(ended.err) < 3000


@pytest.mark.parametrize(
    "change",
    [{"version": 999}, {"dim": "x"}, {"dtype": 7}, {"attributes": [1]}, {"sides": None},
     {"fewer": "x"}, {"dim": -1}, {"dim": 10**12}, {"sides": ["../x"]}, {"attributes": {"a": 3}}],
    ids=str,
)  # fmt: skip
def test_f30_a_layout_of_another_version_or_shape_is_refused(
    shop: Shop, change: dict[str, Any]
) -> None:
    lancedb = pytest.importorskip("lancedb")
    from shutil import rmtree

    shop.built(shop.write("t.csv", "id,image,title\na0,p0.jpg,红裙\n"))
    index = Path(shop.index)
    rows = lancedb.connect(str(index)).open_table("items").to_arrow()
    metadata = dict(rows.schema.metadata or {})
    changed = 0
    for key, value in metadata.items():
        try:
            layout = json.loads(value)
        except ValueError:
            continue
        if isinstance(layout, dict) and "dim" in layout:
            metadata[key] = json.dumps({**layout, **change}).encode()
            changed += 1
    assert changed == 1
    rmtree(index / "items.lance")
    lancedb.connect(str(index)).create_table("items", rows.replace_schema_metadata(metadata))
    run = shop.search()
    assert_refused(run)
    assert re.search(r"version|index", run.err)


@pytest.mark.parametrize("kind", ["keys that are no text", "pos_embed", "quantised", "a list"])
def test_f30_convert_refuses_a_checkpoint_of_another_shape(
    xmr: Callable[..., Any], home: Path, kind: str
) -> None:
    import torch

    tensor = torch.zeros(4, 4)
    quantised = None
    if kind == "quantised":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its own deprecated function
            quantised = torch.quantize_per_tensor(tensor, 1.0, 0, torch.qint8)
    state: Any = {
        "keys that are no text": {1: tensor, ("a", 2): tensor},
        "pos_embed": {"visual_encoder.pos_embed": torch.zeros(1, 4, 0)},
        "quantised": {"text_proj.weight": quantised},
        "a list": [tensor],
    }[kind]
    torch.save({"model": state}, home / "c.pth")
    (home / "v.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n红\n")
    (home / "l.txt").write_text("红\n")
    run = xmr("convert", "bagformer", "c.pth", "o", "--vocab", "v.txt", "--lexicon", "l.txt")
    assert_refused(run, "c.pth")
    assert not Path("o").exists()


@pytest.mark.slow
def test_f30_a_run_killed_before_its_first_save_has_step_0_once(home: Path) -> None:
    start = program("train", "--config", "demo", "--dataset", "set", "--output-dir", "r", *SETS,
                    "--set", "training.max_steps=2000", "--set", "training.evaluate_every=5000",
                    "--set", "training.schedule_steps=5000",
                    "--set", "training.log_every=1")  # fmt: skip
    started = subprocess.Popen(start, cwd=home, env=environment(), stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    log = home / "r/metrics.jsonl"
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and started.poll() is None:
        if log.exists() and log.read_text().count("\n") >= 3:
            break
        time.sleep(0.02)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    ended = process("train", "--resume", "--output-dir", "r", "--set", "training.max_steps=3",
                    cwd=home)  # fmt: skip
    assert ended.code == 0, ended.err
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    keys = [(line.get("step"), tuple(sorted(line))) for line in lines]
    assert len(keys) == len(set(keys))


@pytest.mark.slow
def test_f30_add_of_another_catalogue_does_not_finish_an_unfinished_index(shop: Shop) -> None:
    """Killed while it is filled; then another catalogue is added: products are still missing."""
    rows = [f"a{n},p{n % 10}.jpg,红裙{n}" for n in range(1500)]
    table = shop.write("many.csv", "\n".join(["id,image,title", *rows]) + "\n")
    started = subprocess.Popen(
        program("index", "build", table, shop.index, "--checkpoint", shop.model, "--batch-size",
                "4"), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    info: Any = None
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and started.poll() is None:
        if list(Path(shop.index).glob("items.lance/_versions/*.manifest")):
            time.sleep(0.2)
            break
        time.sleep(0.01)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    info = shop.xmr("index", "info", shop.index, "--json")
    if info.code or info.json()["rows"] == 1500:
        pytest.skip("the build was not caught in the middle")
    assert info.json()["unfinished"] is True
    other = shop.write("o.csv", "id,image,title\nother,p0.jpg,红裙\n")
    run = shop.add(other)
    assert run.code == 0, run.err
    assert shop.xmr("index", "info", shop.index, "--json").json()["unfinished"] is True
    assert shop.add(table).code == 0
    assert shop.xmr("index", "info", shop.index, "--json").json()["unfinished"] is False
