"""``xmr doctor``: check the installation and the hardware."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer

from bagformer_cli import __version__
from bagformer_cli.cli import console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.errors import joined, listed, with_place
from bagformer_cli.messages import language, tr

app = App()


@app.command(
    help=tr(
        "Check the installation and the hardware, and suggest improvements.\n\n"
        "The exit code is 1 if a required package is missing or too old."
    )
)
def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """Inspect the machine and print the report."""
    found = _inspect()
    console.result(found, lambda: _show(found))
    if any(not package["ok"] for package in found["packages"] if package["extra"] is None):
        raise typer.Exit(1)


def _inspect() -> dict[str, Any]:
    from dataclasses import asdict

    from bagformer_cli import machine
    from bagformer_cli.assets import asset_folder
    from bagformer_cli.files import cache_folder

    packages = [asdict(package) for package in machine.packages()]
    broken = None
    compute: dict[str, Any] | None = None
    try:
        compute = asdict(machine.compute())
    except (ImportError, OSError) as error:  # torch is missing, or a library it needs
        broken = f"{type(error).__name__}: {error}"
    found: dict[str, Any] = {
        "xmr": __version__,
        "folder": str(Path(__file__).parents[1]),
        "python": machine.python(),
        "system": machine.system(),
        "language": language(),
        "cpu": asdict(machine.cpu()),
        "memory": machine.memory(),
        "compute": compute,
        "compute_error": broken,
        "packages": packages,
        "assets": {name: str(asset_folder(name)) for name in ("entity_dicts", "configs")},
        "folders": [
            {"what": what, "path": str(path), "size": size, "free": machine.free_space(path)}
            for what, path, size in (
                ("work", Path.cwd(), None),
                ("cache", cache_folder(), machine.folder_size(cache_folder())),
                ("hub", machine.hub_cache(), machine.folder_size(machine.hub_cache())),
            )
        ],
    }
    found["advice"] = _advice(found)
    return found


def _advice(found: dict[str, Any]) -> list[str]:
    advice = []
    if not found["packages"]:
        advice.append(tr("xmr is not installed: run `pip install -e .` in its folder."))
    for package in found["packages"]:
        if package["extra"] is None and not package["ok"]:
            wanted = f"{package['name']}{package['wanted']}"
            advice.append(tr('Run `pip install "{package}"`.', package=wanted))
    advice += [
        tr("The installation is incomplete, {path} is missing: install xmr again.", path=path)
        for path in found["assets"].values()
        if not Path(path).is_dir()
    ]
    cores, compute = found["cpu"]["cores"], found["compute"]
    if found["compute_error"] is not None:
        advice.append(tr("torch cannot be imported: {error}", error=found["compute_error"]))
    elif compute["threads"] > cores:
        advice.append(
            tr(
                "torch uses {threads} threads on {cores} cores: set OMP_NUM_THREADS={cores}.",
                threads=compute["threads"],
                cores=cores,
            )
        )
    elif compute["threads"] < cores and "OMP_NUM_THREADS" in os.environ:
        advice.append(
            tr(
                "OMP_NUM_THREADS limits torch to {threads} of {cores} cores.",
                threads=compute["threads"],
                cores=cores,
            )
        )
    if compute is not None and not compute["devices"]:
        advice.append(
            tr(
                "There is no GPU. The demo does not need one; training at full size would be very "
                "slow."
            )
        )
    if any(folder["free"] < 5e9 for folder in found["folders"]):
        advice.append(tr("A disk that xmr writes to has less than 5 GB of free space."))
    return advice


def _show(found: dict[str, Any]) -> None:
    cpu, compute = found["cpu"], found["compute"]
    console.heading(tr("This machine"))
    rows = {
        "xmr": f"{found['xmr']} ({found['folder']})",
        "Python": found["python"],
        tr("system"): found["system"],
        tr("CPU"): tr("{name}, {cores} cores", name=cpu["name"], cores=cpu["cores"]),
        tr("instruction sets"): " ".join(cpu["features"]) or None,
        tr("memory"): _bytes(found["memory"]),
    }
    if compute is not None:
        rows["torch"] = tr(
            "{version}, {threads} threads, {capability} kernels",
            version=compute["torch"],
            threads=compute["threads"],
            capability=compute["capability"],
        )
        rows[tr("accelerators")] = joined(map(_device, compute["devices"])) or tr("none")
    console.facts(rows)
    console.heading(tr("Folders"))
    names = {"work": tr("current folder"), "cache": tr("cache"), "hub": tr("Hugging Face models")}
    console.table(
        ["", tr("path"), tr("size"), tr("free")],
        [
            [names[f["what"]], f["path"], _bytes(f["size"]), _bytes(f["free"])]
            for f in found["folders"]
        ],
    )
    console.heading(tr("Packages"))
    console.table(
        [tr("package"), tr("version required"), tr("installed"), ""],
        [
            [package["name"], package["wanted"], package["installed"], _state(package)]
            for package in found["packages"]
            if package["extra"] is None
        ],
    )
    console.heading(tr("Extras"))
    console.table([tr("extra"), tr("packages"), tr("state / how to install")], _extras(found))
    if found["advice"]:
        console.heading(tr("Advice"))
        for line in found["advice"]:
            console.say(f"  • {line}")


def _state(package: dict[str, Any]) -> str:
    if package["ok"]:
        return tr("ok")
    return tr("missing") if package["installed"] is None else tr("too old")


def _extras(found: dict[str, Any]) -> list[list[object]]:
    checkout = Path(found["folder"]).parent
    here = (checkout / "pyproject.toml").is_file()
    rows: list[list[object]] = []
    for extra in sorted({p["extra"] for p in found["packages"]} - {None}):
        packages = [p for p in found["packages"] if p["extra"] == extra]
        bad = [p for p in packages if not p["ok"]]
        names = listed(f"{p['name']} {p['installed'] or ''}".strip() for p in packages)
        how = (
            f'pip install -e "{checkout}[{extra}]"'
            if here
            else f'pip install "bagformer-cli[{extra}]"'
        )
        state = _state(bad[0] if bad else packages[0])
        rows.append([extra, names, with_place(how, state) if bad else state])
    return rows


def _device(device: dict[str, Any]) -> str:
    parts = [device["name"], _bytes(device["memory"] or None), "bf16" if device["bf16"] else ""]
    return ", ".join(part for part in parts if part)


def _bytes(count: int | None) -> str | None:
    if count is None:
        return None
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
