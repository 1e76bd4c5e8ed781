"""Exported models, learned boundaries, hard negatives and folders to upload of somebody else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest

from tests.support.black_box import MEMORY, assert_no_bug, assert_refused, process
from tests.support.small_model import TINY, set_options

SETS = set_options(*TINY, "training.batch_size=4", "training.max_steps=1")


# Exported models.


@pytest.fixture(scope="module")
def export(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as ONNX."""
    pytest.importorskip("onnxruntime")
    from bagformer_cli.cli.main import main

    folder = tmp_path_factory.mktemp("export") / "m"
    assert main(["export", "onnx", str(model), str(folder)]) == 0
    return folder


def outputs(nodes: list[Any], tensors: list[Any], dim: Any = 16) -> Any:
    """A graph of titles whose outputs have the right names."""
    import onnx

    helper, types = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("input_ids", types.INT64, ["n", "p"]),
            helper.make_tensor_value_info("attention_mask", types.BOOL, ["n", "p"]),
            helper.make_tensor_value_info("bag_tokens", types.BOOL, ["n", "g", "p"]),
        ],
        [
            helper.make_tensor_value_info("vectors", types.FLOAT, None),
            helper.make_tensor_value_info("mask", types.BOOL, None),
            helper.make_tensor_value_info("cls", types.FLOAT, None),
        ],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def constant(name: str, array: Any) -> Any:
    import onnx

    return onnx.numpy_helper.from_array(np.asarray(array), name)


def file_of(name: str, location: str, dims: list[int]) -> Any:
    """A tensor whose values are in another file."""
    import onnx

    tensor = onnx.TensorProto(name=name, data_type=1, dims=dims, data_location=1)
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value=str(4 * int(np.prod(dims))))
    return tensor


def usual() -> list[Any]:
    return [constant("vectors", np.ones((1, 1, 16), np.float32)),
            constant("mask", np.ones((1, 1), bool)),
            constant("cls", np.ones((1, 16), np.float32))]  # fmt: skip


def looping() -> Any:
    """A loop of 2^62 rounds that computes the mask."""
    import onnx

    helper, types = onnx.helper, onnx.TensorProto
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["more"]), helper.make_node("Not", ["a"], ["b"])],
        "body",
        [helper.make_tensor_value_info("i", types.INT64, []),
         helper.make_tensor_value_info("go", types.BOOL, []),
         helper.make_tensor_value_info("a", types.BOOL, [1, 1])],
        [helper.make_tensor_value_info("more", types.BOOL, []),
         helper.make_tensor_value_info("b", types.BOOL, [1, 1])],
    )  # fmt: skip
    vectors, mask, cls = usual()
    mask.name = "first"
    node = helper.make_node("Loop", ["rounds", "yes", "first"], ["mask"], body=body)
    more = [constant("rounds", np.int64(2**62)), constant("yes", np.bool_(True))]
    return outputs([node], [vectors, mask, cls, *more])


def hostile_graph(kind: str, folder: Path) -> Any:
    import onnx

    helper = onnx.helper
    vectors, mask, cls = usual()
    if kind == "a loop":
        return looping()
    if kind == "a giant tensor":
        node = helper.make_node("ConstantOfShape", ["shape"], ["vectors"])
        return outputs([node], [constant("shape", np.array([1, 2**40, 16])), mask, cls])
    if kind == "a type of operation that nobody knows":
        node = helper.make_node("RunShell", ["mask"], ["vectors"], domain="evil")
        return outputs([node], [mask, cls])
    if kind == "a library in a node":
        node = helper.make_node("PyOp", ["mask"], ["vectors"], domain="com.microsoft.python",
                                module="os", class_name="system")  # fmt: skip
        return outputs([node], [mask, cls])
    if kind == "vectors of another width":
        return outputs([], [constant("vectors", np.ones((1, 1, 7), np.float32)), mask, cls])
    if kind == "a mask without vectors":
        return outputs([], [vectors, constant("mask", np.zeros((1, 1), bool)), cls])
    if kind == "numbers for the mask":
        return outputs([], [vectors, constant("mask", np.ones((1, 1), np.float32)), cls])
    if kind == "five items for one":
        return outputs([], [constant("vectors", np.ones((5, 1, 16), np.float32)),
                            constant("mask", np.ones((5, 1), bool)), cls])  # fmt: skip
    locations = {
        "a file above": "../secret.bin",
        "an absolute path": str(folder.parent / "secret.bin"),
        "a link": "link.bin",
        "a device": "/dev/zero",
        "a pipe": "pipe.bin",
        "a file that is not there": "gone.bin",
        "the memory": "*/_ORT_MEM_ADDR_/*",
    }
    return outputs([], [file_of("vectors", locations[kind], [1, 1, 16]), mask, cls])


GRAPHS = [
    "a loop", "a giant tensor", "a type of operation that nobody knows", "a library in a node",
    "vectors of another width", "a mask without vectors", "numbers for the mask",
    "five items for one", "a file above", "an absolute path", "a link", "a device", "a pipe",
    "a file that is not there", "the memory",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", GRAPHS)
def test_exports_of_a_stranger_read_only_their_folder_and_end(
    home: Path, export: Path, kind: str
) -> None:
    folder = copytree(export, home / "m")
    (home / "secret.bin").write_bytes(np.arange(16, dtype=np.float32).tobytes())
    (folder / "link.bin").symlink_to(home / "secret.bin")
    os.mkfifo(folder / "pipe.bin")
    (folder / "text.onnx").write_bytes(hostile_graph(kind, folder).SerializeToString())
    ended = process("score", "p0.jpg", "红", "--checkpoint", folder, cwd=home, memory=MEMORY,
                    cpu=60, timeout=240)  # fmt: skip
    assert_refused(ended, "text.onnx")
    assert len(ended.err) < 2000, ended.err


@pytest.mark.slow
@pytest.mark.parametrize("cut", [0, 1, 20, 500, -1])
def test_exports_that_are_damaged_are_refused(home: Path, export: Path, cut: int) -> None:
    folder = copytree(export, home / "m")
    data = (folder / "image.onnx").read_bytes()
    (folder / "image.onnx").write_bytes(data[:cut])
    ended = process("score", "p0.jpg", "红", "--checkpoint", folder, cwd=home, memory=MEMORY,
                    timeout=240)  # fmt: skip
    assert_refused(ended, "image.onnx")


@pytest.mark.parametrize(
    "change",
    [
        {"dim": 10**12}, {"dim": -1}, {"dim": "x"}, {"image_size": 10**9}, {"image_size": 0},
        {"model": None}, {"opset": [1]}, {"model": "../../x", "dim": 10**9}, {"more": 1},
    ],
)  # fmt: skip
def test_exports_whose_facts_lie_are_refused(
    xmr: Callable[..., Any], home: Path, export: Path, change: dict[str, Any]
) -> None:
    folder = copytree(export, home / "m")
    facts = json.loads((folder / "export.json").read_text("utf-8"))
    (folder / "export.json").write_text(json.dumps({**facts, **change}), "utf-8")
    assert_refused(xmr("score", "p0.jpg", "红", "--checkpoint", folder), "export.json")


@pytest.mark.parametrize("content", ["[" * 10**5, "null", "[]", '"x"', "{}", '{"version": NaN}'])
def test_exports_whose_facts_are_none_are_refused(
    xmr: Callable[..., Any], home: Path, export: Path, content: str
) -> None:
    folder = copytree(export, home / "m")
    (folder / "export.json").write_text(content, "utf-8")
    assert_refused(xmr("score", "p0.jpg", "红", "--checkpoint", folder))


# Learned boundaries.


def boundary_file(path: Path, kind: str) -> None:
    from safetensors.numpy import save_file

    from bagformer_cli.text.boundary_features import WEIGHTS

    name = "boundaries 1"
    if kind in ("largest", "smallest", "alternating"):
        weights = np.full(WEIGHTS, 65504 if kind != "smallest" else -65504, np.float16)
        if kind == "alternating":
            weights[::2] *= -1
        save_file({name: weights}, path)
    elif kind == "NaN":
        save_file({name: np.full(WEIGHTS, np.nan, np.float16)}, path)
    elif kind == "another length":
        save_file({name: np.zeros(7, np.float16)}, path)
    elif kind == "another type":
        save_file({name: np.zeros(WEIGHTS, np.float32)}, path)
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a link to zero":
        path.symlink_to("/dev/zero")
    else:
        size = 10**12 if kind == "a lying header" else 2
        about: Any = {name: {"dtype": "F16" if kind == "a lying header" else kind,
                             "shape": [size // 2], "data_offsets": [0, size]}}  # fmt: skip
        text = json.dumps(about).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0\0")


BOUNDARIES = [
    "largest", "smallest", "alternating", "NaN", "another length", "another type",
    "a pipe", "a link to zero", "a lying header", "BF16", "F8_E4M3", "no type",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOUNDARIES)
def test_learned_boundaries_of_a_stranger_cut_titles_or_are_refused(home: Path, kind: str) -> None:
    boundary_file(home / "b.safetensors", kind)
    titles = ["红色碎花连衣裙 2件装", "空军一号运动鞋", "a", "国" * 3000]
    (home / "t.txt").write_text("\n".join(titles) + "\n", "utf-8")
    ended = process("bags", "--input", "t.txt", "--json", "--lexicon",
                    "b.safetensors", cwd=home, memory=MEMORY, cpu=60, timeout=240)  # fmt: skip
    if kind not in ("largest", "smallest", "alternating"):
        assert_refused(ended, "b.safetensors")
        return
    assert ended.code == 0, ended.err
    for title, line in zip(titles, ended.out.splitlines(), strict=True):
        bags = json.loads(line)["bags"]
        spans = [(bag["start"], bag["end"]) for bag in bags]
        assert spans == sorted(spans)
        assert all(begin < end for begin, end in spans)
        covered = "".join(title[begin:end] for begin, end in spans)
        assert covered.replace(" ", "") == title.replace(" ", "")


@pytest.mark.parametrize("kind", ["NaN", "another length", "a pipe", "a link to zero"])
def test_learned_boundaries_in_a_model_folder_are_checked(
    xmr: Callable[..., Any], model: Path, home: Path, kind: str
) -> None:
    folder = copytree(model, home / "m")
    boundary_file(folder / "boundaries.safetensors", kind)
    run = xmr("score", "p0.jpg", "红", "--checkpoint", folder)
    assert_no_bug(run)
    assert run.code == 2 or kind in ("a pipe", "a link to zero"), run.err
    if run.code:
        assert "boundaries.safetensors" in run.err


# Hard negatives.

LINE = '{"query_id": 1, "negatives": [105, 106]}\n'
NEGATIVES = {
    "of another dataset": '{"query_id": 999, "negatives": [105]}\n',
    "images that are not there": '{"query_id": 1, "negatives": [-1, 5]}\n',
    "a title twice": LINE + '{"query_id": 1, "negatives": [107]}\n',
    "huge numbers": '{"query_id": 1, "negatives": [' + "9" * 5000 + "]}\n",
    "a number that wraps": f'{{"query_id": 1, "negatives": [{2**64 + 105}]}}\n',
    "a million of one image": '{"query_id": 1, "negatives": [' + "105, " * 10**6 + "105]}\n",
    "nested": '{"query_id": 1, "negatives": ' + "[" * 10**5 + "]" * 10**5 + "}\n",
    "texts": '{"query_id": 1, "negatives": "105"}\n',
    "truth values": '{"query_id": true, "negatives": [105]}\n',
    "no JSON": "\x1b[2J\x07{\n",
    "no text": "\udcff\udcfe\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*NEGATIVES, "a pipe", "zero", "a line without end"])
def test_negatives_of_a_stranger_are_refused(home: Path, kind: str) -> None:
    path = home / "hard.jsonl"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "a line without end":
        with open(path, "w") as stream:
            for _ in range(200):
                stream.write('{"query_id": 1, "negatives": [' + "105, " * 200_000)
    else:
        path.write_text(NEGATIVES[kind], "utf-8", errors="surrogateescape")
    ended = process("train", "--config", "demo", "--dataset", "set", *SETS, "--set",
                    "data.hard_negatives=hard.jsonl", cwd=home, memory=MEMORY, cpu=60,
                    timeout=240)  # fmt: skip
    assert_refused(ended, "hard.jsonl")
    assert "\x1b" not in ended.err
    assert len(ended.err) < 2000


# Uploads.


@pytest.mark.parametrize("kind", ["a link", "a linked folder", "a pipe"])
@pytest.mark.parametrize("place", ["a model folder", "a run folder", "an exported model"])
def test_uploads_take_no_file_from_elsewhere(
    xmr: Callable[..., Any], model: Path, export: Path, home: Path, place: str, kind: str
) -> None:
    """A folder of a stranger with a link to a private file: its content would be published."""
    folder = copytree(export if place == "an exported model" else model, home / "m/best")
    (home / "secret").mkdir()
    (home / "secret/id_rsa").write_text("private")
    evil = folder / "notes"
    if kind == "a pipe":
        os.mkfifo(evil)
    else:
        evil.symlink_to(home / "secret" / ("id_rsa" if kind == "a link" else ""))
    given = folder.parent if place == "a run folder" else folder
    assert_refused(xmr("push", given, "somebody/model"), "notes")


@pytest.mark.parametrize(
    "card",
    [
        "---\nlicense: " + "a" * 10**6 + "\n---\n", "---\n" * 10**5, "\x1b[2J\x07",
        "---\nlicense: mit\n", "\0" * 100,
    ],
)  # fmt: skip
def test_uploads_and_models_survive_any_card(
    xmr: Callable[..., Any], model: Path, home: Path, card: str
) -> None:
    folder = copytree(model, home / "m")
    (folder / "README.md").write_text(card, "utf-8")
    for run in (
        xmr("score", "p0.jpg", "红", "--checkpoint", folder),
        xmr("push", folder, "somebody/model"),
    ):
        assert_no_bug(run)
        assert "\x1b" not in run.err + run.out
