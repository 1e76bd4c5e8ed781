"""The rules of docs/architecture.md that a program can check: layers, imports, translations."""

from __future__ import annotations

import re

import pytest

from tests.support.sources import (
    PACKAGE,
    imports,
    missing,
    modules,
    placeholders,
    sentences,
    translations,
    type_checking_imports,
    unused,
)

LAYERS = [
    {
        "messages",
        "errors",
        "progress",
        "assets",
        "files",
        "temporary",
        "outputs",
        "opening",
        "file_kinds",
        "calibration",
        "hub",
        "machine",
        "compiled",
        "transfer",
        "wrapping",
        "ray_cluster",
        "config",
    },
    {"text", "original.text"},
    {"vectors", "data", "inputs"},
    {"encoders", "runtime"},
    {"interaction", "losses"},
    {"models", "original", "adapters"},
    {"index", "export"},
    {"evaluation"},
    {"training"},
    {"demo", "datasets", "api", "bench", "pages", "serve", "cli", "__main__"},
]
"""Packages and top-level modules from low to high. A package imports only lower layers and, inside
its own layer, only in one direction (the cycle test)."""

ENTRANCES = {
    ("models.build", "original"),
    ("text.from_config", "original.text"),
}
"""The only upward imports: `compat: bagformer` is switched on where a configuration is built."""

HEAVY = {"torch", "torchvision", "transformers", "timm", "lancedb", "numba", "tensorboard"}
IMPORT_TORCH_FREELY = {
    "vectors", "encoders", "interaction", "losses", "models", "original", "adapters", "index",
    "export", "evaluation", "training", "bench", "pages", "serve", "api", "compiled",
}  # fmt: skip
TORCH_MODULES = {"data.batches", "data.kept_outputs", "data.train_batches"}


def package(module: str) -> str:
    """The name under which ``LAYERS`` lists a dotted module name."""
    return "original.text" if module == "original.text" else module.split(".")[0]


def layer(name: str) -> int:
    for number, names in enumerate(LAYERS):
        if name in names:
            return number
    pytest.fail(f"{name} is in no layer: add it to LAYERS and to docs/architecture.md")


def own_imports() -> list[tuple[str, str, str]]:
    """(importing module, imported package, text for a failure) of imports between packages."""
    found = []
    for one in imports():
        target = one.target.removeprefix("bagformer_cli").removeprefix(".")
        ours = one.target.startswith("bagformer_cli") and target and one.module
        if ours and package(target) != package(one.module):
            found.append((one.module, package(target), str(one)))
    return found


def test_the_page_lists_the_same_layers() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.*`) \| .* \| (\d) \|$", page, re.MULTILINE)
    shown: dict[int, set[str]] = {}
    for names, number in rows:
        found = {
            name.removesuffix("/").removesuffix(".py") for name in re.findall(r"`(.+?)`", names)
        }
        shown.setdefault(int(number), set()).update(found)
    assert shown == {n: names - {"original.text"} for n, names in enumerate(LAYERS)}


def test_imports_point_to_lower_layers() -> None:
    wrong = [
        text
        for module, target, text in own_imports()
        if layer(target) > layer(package(module)) and (module, target) not in ENTRANCES
    ]
    assert not wrong, "\n".join(wrong)


def test_no_packages_import_each_other_in_a_circle() -> None:
    needs: dict[str, set[str]] = {}
    for module, target, _ in own_imports():
        if (module, target) not in ENTRANCES:
            needs.setdefault(package(module), set()).add(target)
    while needs:
        free = {name for names in needs.values() for name in names} - needs.keys()
        free |= {name for name, names in needs.items() if not names}
        assert free, f"a circle of imports among: {sorted(needs)}"
        needs = {name: names - free for name, names in needs.items() if name not in free}


def test_only_the_command_line_and_dataset_names_know_the_demo() -> None:
    users = {module for module, target, _ in own_imports() if target == "demo"}
    assert users <= {"datasets", "cli.convert_packaged", "cli.data", "cli.demo"}


def test_private_names_stay_in_their_package() -> None:
    wrong = [
        str(one)
        for one in imports()
        if one.target.startswith("bagformer_cli")
        and any(part.startswith("_") for part in [*one.target.split("."), *one.names])
        and one.names != ("__version__",)
        and package(one.target.removeprefix("bagformer_cli.")) != package(one.module)
    ]
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
        and found.module.split(".")[0] not in IMPORT_TORCH_FREELY
        and found.module not in TORCH_MODULES
        and found.line not in type_checking_imports(found.module)
    ]
    assert not wrong, "\n".join(wrong)


def test_text_knows_no_torch() -> None:
    wrong = [
        str(found)
        for found in imports()
        if package(found.module) in {"text", "original.text"}
        and found.target.split(".")[0] in HEAVY - {"numba"}
    ]
    assert not wrong, "\n".join(wrong)


def test_the_command_files_import_little() -> None:
    """`xmr --help` is quick because command files import lower layers inside functions."""
    light = {
        "errors",
        "messages",
        "progress",
        "wrapping",
        "",
        *(m for m in modules() if m.startswith("cli")),
    }
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


def test_messages_can_be_translated() -> None:
    for sentence in sentences():
        assert sentence.text is not None, f"{sentence.where}: tr() takes a literal"
        if sentence.values is not None and (sentence.values or placeholders(sentence.text)):
            assert placeholders(sentence.text) == sentence.values, (
                f"{sentence.where}: the placeholders of {sentence.text!r} and its values differ"
            )


def test_translations_have_the_placeholders_of_the_english() -> None:
    for english, chinese in translations().items():
        assert placeholders(english) == placeholders(chinese), english
        assert english.count("\n\n") == chinese.count("\n\n"), f"paragraphs differ: {english!r}"


def test_every_message_has_a_chinese_translation() -> None:
    """`make translations` updates the catalogue; new messages then wait for their Chinese."""
    assert not missing()
    assert not unused()
