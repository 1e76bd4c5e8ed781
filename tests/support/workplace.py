"""A folder as a user has it: photos, tables, titles, a dataset, a run, an index, and odd files."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import torch
from PIL import Image

from bagformer_cli.cli.main import main
from bagformer_cli.config import load_config, save_config
from tests.support.datasets import picture, write_split
from tests.support.small_model import saved_model, write_table
from tests.support.small_run import TINY

TITLES = ("红色碎花连衣裙", "蓝色牛仔裤女", "白色运动鞋男", "黑色双肩包", "粉色保温杯", "绿色雨伞",
          "灰色围巾", "黄色帽子")  # fmt: skip


def write_workplace(folder: Path) -> None:
    """Fill the current folder ``folder``; it must be empty."""
    _write_catalogue(folder)
    _write_titles(folder)
    _write_odd_files(folder)
    queries = [(i, f"{TITLES[i % 8]}{i}", (100 + i,)) for i in range(16)]
    for split in ("train", "valid"):
        write_split(folder / "data" / "demo", split, queries)
    save_config(load_config("demo", [*TINY, "training.max_steps=1"]), folder / "small.yaml")
    run("train", "--config", "small.yaml", "--output-dir", "runs/demo-bagwise")
    saved_model(folder / "other-model", seed=1)
    run("index", "build", "products.csv", "index/", "--dtype", "float32")
    run("encode", "products.csv", "--out", "encoded/")
    _write_models(folder)
    for name in ("secret.txt", "secret.csv", "secret.png"):
        (folder / name).write_text("红色连衣裙\n", "utf-8")
        (folder / name).chmod(0)
    (folder / "locked").mkdir()
    (folder / "locked").chmod(0o555)


def run(*arguments: str) -> None:
    """Run a command that must succeed."""
    assert main(list(arguments)) == 0, arguments


def _write_catalogue(folder: Path) -> None:
    write_table(folder)
    text = (folder / "products.csv").read_text("utf-8")
    (folder / "gbk.csv").write_bytes(text.encode("gb18030"))
    rows = [line.split(",") for line in text.splitlines()]
    tables = {
        "empty.csv": "",
        "heading.csv": "id,image,title,price\n",
        "no-titles.csv": "id,image\na,photos/0.png\n",
        "no-images.csv": "编号,价格\na,1\n",
        "no-photos.csv": "id,image,title\na,photos/a.png,红色连衣裙\nb,photos/b.png,蓝色裤子\n",
        "no-json.jsonl": '{"id": "a", "image": "photos/0.png", "title": "红"\n',
        "products.json": json.dumps([dict(zip(rows[0], row, strict=False)) for row in rows[1:3]]),
    }
    for name, content in tables.items():
        (folder / name).write_text(content, "utf-8")
    (folder / "image.jpg").write_bytes(picture(1, form="JPEG"))
    (folder / "cut.jpg").write_bytes(picture(1, (200, 200), "JPEG")[:700])
    (folder / "no-picture.jpg").write_text("红色连衣裙\n", "utf-8")
    (folder / "empty.jpg").touch()
    stream = io.BytesIO()
    Image.new("RGB", (40, 40)).save(stream, "PDF")
    (folder / "list.pdf").write_bytes(stream.getvalue())
    (folder / "list.csv").write_bytes(stream.getvalue())
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.write(folder / "image.jpg", "image.jpg")
    (folder / "zip.csv").write_bytes((folder / "photos.zip").read_bytes())


def _write_titles(folder: Path) -> None:
    lines = "".join(f"{title}\n" for title in TITLES)
    (folder / "titles.txt").write_text(lines, "utf-8")
    (folder / "gbk.txt").write_bytes(lines.encode("gb18030"))
    (folder / "empty.txt").touch()
    (folder / "words.tsv").write_text("碎花\tpattern\n牛仔裤\tproduct\n", "utf-8")
    marked = "".join(f"{c} {tag}\n" for c, tag in zip("红色裙", ("B-C", "I-C", "O"), strict=True))
    (folder / "marked.txt").write_text(f"{marked}\n", "utf-8")
    (folder / "predictions.jsonl").write_text('{"query_id": 0, "item_ids": [1]}\n', "utf-8")


def _write_odd_files(folder: Path) -> None:
    (folder / "empty").mkdir()
    settings = {
        "no-yaml.yaml": "model: {interaction: cls\n",
        "list.yaml": "- model\n- text\n",
        "empty.yaml": "",
        "unknown.yaml": "modle:\n  interaction: cls\n",
        "type.yaml": "training:\n  batch_size: many\n",
        "picture.yaml": "",
    }
    for name, content in settings.items():
        (folder / name).write_text(content, "utf-8")
    (folder / "picture.yaml").write_bytes(picture(2))


def _write_models(folder: Path) -> None:
    best = folder / "runs" / "demo-bagwise" / "best"
    for name, left_out in (("no-weights", "model.safetensors"), ("no-config", "config.yaml"),
                           ("no-vocab", "vocab.txt"), ("cut-weights", "")):  # fmt: skip
        (folder / name).mkdir()
        for file in best.iterdir():
            if file.name != left_out:
                (folder / name / file.name).write_bytes(file.read_bytes())
    weights = folder / "cut-weights" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    torch.save({"epoch": 3}, folder / "no-model.pth")
