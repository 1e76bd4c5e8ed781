"""The rules of docs/architecture.md that a machine can hold: layers, imports, translations."""

from __future__ import annotations

import json
from fnmatch import fnmatch

import pytest

from tests.sources import (
    CATALOGUE,
    imports,
    missing,
    modules,
    placeholders,
    sentences,
    type_checking_imports,
    unused,
)

# Layer -> its modules, each below those listed after it. A module imports modules of layers with a
# lower number, and of its own layer those that stand above it; 4a and 4b do not know each other.
LAYERS = {
    "0": "messages errors values progress files assets machine config.sections config.run "
    "config.files config",
    "1": "text.characters text.trie text.wordpiece text.patterns text.cover text.alignment "
    "text.kernels text.tokenizer text.lines text.marked text.dictionaries text.lexicon "
    "text.segmenter text.bags text.compat text.build text.baselines "
    "text.checking text.sketch text.mining text.make_vocab text",
    "2": "data.shards data.titles data.arrays data.lines data.muge data.images data.augment "
    "data.spans data.check data.tables data.importing data.lmdb_import data.split data.links "
    "data.tokens data.store data.demo.palette data.demo.attributes data.demo.canvas "
    "data.demo.kinds_* data.demo.catalogue data.demo.scene data.demo.titles "
    "data.demo.plan data.demo.calibration data.demo.generate data.demo data.datasets "
    "data.pieces data.product_table data.product_lines data.catalogue "
    "data.regions data.masking data.batches data.epochs data",
    "3": "encoders.vision encoders.text encoders.pooling encoders.regions encoders.finer "
    "encoders.fusion encoders.joint encoders",
    "4a": "interaction._kernels interaction._decode interaction.kmeans interaction.codes "
    "interaction.vectors interaction.stored interaction._blocks "
    "interaction._products interaction._threads interaction._lanes interaction._rounded "
    "interaction._plain interaction._cpu interaction._wide interaction._triton "
    "interaction._recompute interaction.maxsim interaction.topk interaction.explain interaction",
    "4b": "losses.contrastive losses.hinge losses.matching losses.masked losses.captioning "
    "losses.distill losses",
    "5": "models.dual models.cross models.compat models.build models.identity models.checkpoint "
    "models.convert models.encode models.scorers models.momentum models.cells models.places models",
    "6": "index.reduce index.rows index.base index.where index.sql index.tokens index.mirror "
    "index.places index.lancedb index.qdrant index.engines index.encoded index.encode "
    "index.codebook index.build index.slow index.search index.fonts index.sheet index",
    "7": "evaluation.metrics evaluation.products evaluation.submission evaluation.blend "
    "evaluation.subsets evaluation.evaluate evaluation.compare evaluation",
    "8": "training.parallel training.optimizer training.log training.state training.teacher "
    "training.targets training.memory training.masked training.pairs training.tasks training.step "
    "training.mining training.loop training.run training.chain training",
    "9": "api bench.plain_* bench.maxsim bench.exact_search bench.trials bench.* bench "
    "cli.wording cli.console cli.bars cli.failures cli.help cli.app cli.options "
    "cli.doctor cli.data cli.preprocess cli.bags cli.dict cli.train cli.eval cli.compare "
    "cli.score cli.encode cli.index cli.search cli.convert cli.bench cli.demo cli.main cli",
}

HEAVY = {"torch", "torchvision", "transformers", "timm", "lancedb", "numba", "tensorboard"}
TORCH_BY_NATURE = (
    "encoders",
    "interaction",
    "losses",
    "models",
    "index",
    "evaluation",
    "training",
    "bench",
)


def _place(module: str) -> tuple[str, int]:
    for layer, names in LAYERS.items():
        for position, pattern in enumerate(names.split()):
            if fnmatch(module, pattern):
                return layer, position
    pytest.fail(f"{module} is not in the table of layers: put it where it belongs")


def _number(layer: str) -> int:
    return int(layer.rstrip("ab"))


def test_every_module_has_a_layer() -> None:
    for module in modules():
        if module:
            _place(module)


def test_imports_point_to_lower_layers() -> None:
    wrong = []
    for found in imports():
        target = found.target.removeprefix("bagformer_cli.")
        if found.target == target or not found.module:  # another package; our own front door
            continue
        layer, position = _place(found.module)
        to_layer, to_position = _place(target)
        # A pattern such as `index.*` is one place: its members do not import each other.
        lower = _number(to_layer) < _number(layer)
        above = to_layer == layer and to_position < position
        if not (lower or above):
            wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


def test_rich_is_used_in_the_console_and_its_bars_alone() -> None:
    users = {i.module for i in imports() if i.target.split(".")[0] == "rich"}
    assert users <= {"cli.console", "cli.bars"}


def test_heavy_libraries_are_imported_where_they_are_needed() -> None:
    wrong = [
        str(found)
        for found in imports()
        if found.target.split(".")[0] in HEAVY
        and not found.local
        and found.module.split(".")[0] not in TORCH_BY_NATURE
        and found.module not in {"api", "data.batches", "data.epochs"}
        and found.line not in type_checking_imports(found.module)
    ]
    assert not wrong, "\n".join(wrong)


def test_text_knows_no_torch() -> None:
    wrong = [
        str(found)
        for found in imports()
        if found.module.split(".")[0] == "text" and found.target.split(".")[0] in HEAVY - {"numba"}
    ]
    assert not wrong, "\n".join(wrong)


def test_the_command_files_import_little() -> None:
    """`xmr --help` is quick because command files import lower layers inside functions."""
    light = {"errors", "messages", "progress", "", *(m for m in modules() if m.startswith("cli"))}
    wrong = []
    for found in imports():
        target = found.target.split(".")[0]
        ours = found.target.removeprefix("bagformer_cli").removeprefix(".") in light
        if found.module.startswith("cli") and not found.local:
            if found.line in type_checking_imports(found.module):
                continue
            if (target == "bagformer_cli" and not ours) or target in {*HEAVY, "numpy", "pydantic"}:
                wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


def test_what_is_said_can_be_translated() -> None:
    for sentence in sentences():
        assert sentence.text is not None, f"{sentence.where}: tr() takes a literal"
        if sentence.values is not None and (sentence.values or placeholders(sentence.text)):
            assert placeholders(sentence.text) == sentence.values, (
                f"{sentence.where}: the placeholders of {sentence.text!r} and its values differ"
            )


def test_chinese_entries_have_the_placeholders_of_the_english() -> None:
    for english, chinese in json.loads(CATALOGUE.read_text("utf-8")).items():
        assert placeholders(english) == placeholders(chinese), english
        assert english.count("\n\n") == chinese.count("\n\n"), f"paragraphs differ: {english!r}"


def test_everything_is_said_in_chinese_too() -> None:
    """`make translations` prints what is missing, ready to be filled in."""
    assert not missing()
    assert not unused()
