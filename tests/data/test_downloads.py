"""Images are downloaded by address: cached, limited, from public places only, each for its row."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bagformer_cli.data import download_cache, downloads
from bagformer_cli.data.download_cache import delete_oldest
from bagformer_cli.data.downloads import download, is_address
from bagformer_cli.data.image_files import ImageAccess, place_of
from bagformer_cli.data.importing.table_import import ImportOptions, import_table
from bagformer_cli.data.muge import MugeFolder, iter_images
from bagformer_cli.errors import InputError
from tests.support.datasets import picture


class Shop(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012 - emptied by the fixture

    def do_GET(self) -> None:
        Shop.asked.append(self.path)
        name = self.path.rpartition("/")[2].partition("?")[0]
        again = Shop.asked.count(self.path)
        if name == "gone.png" or (name == "tired.png" and again == 1):
            self.send_error(404 if name == "gone.png" else 503)
            return
        if name.startswith("to"):
            self.send_response(302)
            places = {
                "to-a.png": "/a.png",
                "to-file.png": "file:///etc/passwd",
                "to-ftp.png": "ftp://127.0.0.1/a.png",
                "to-self.png": "/to-self.png",
            }
            self.send_header("Location", places[name])
            self.end_headers()
            return
        body = picture(1)
        if name == "page.png":
            body = b"<html>please log in</html>"
        self.send_response(200)
        if name != "endless.png":
            self.send_header("Content-Length", str(len(body) + (9 if name == "cut.png" else 0)))
        self.end_headers()
        if name == "slow.png":
            time.sleep(1)
        self.wfile.write(body)
        if name == "endless.png":
            try:
                while True:
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                pass

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("XMR_CACHE", str(tmp_path / "cache"))
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(downloads, "WAIT_SECONDS", 0.5)
    Shop.asked.clear()
    downloads._failures.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_an_image_is_downloaded_once(server: str, tmp_path: Path) -> None:
    for address in (f"{server}/a.png", f"{server}/a.png#top", f"HTTP{server[4:]}/a.png"):
        assert download(address, "any") == picture(1)
    assert Shop.asked == ["/a.png"]
    assert download(f"{server}/a.png?v=2", "any") == picture(1)
    assert download(f"{server}/红 裙.png", "any") == picture(1)
    assert Shop.asked[1:] == ["/a.png?v=2", "/%E7%BA%A2%20%E8%A3%99.png"]


def test_a_redirection_is_followed_and_a_tired_server_asked_again(server: str) -> None:
    assert download(f"{server}/to-a.png", "any") == picture(1)
    assert download(f"{server}/tired.png", "any") == picture(1)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gone.png", "HTTP 404"),
        ("page.png", "not an image"),
        ("to-file.png", "HTTP 302.*not allowed"),
        ("to-ftp.png", "redirection to ftp:"),
        ("to-self.png", "HTTP 302"),
        ("endless.png", "more than 1 MB"),
        ("slow.png", "no answer"),
        ("cut.png", "cannot be downloaded|broken"),
    ],
)
def test_a_failure_names_the_address_and_is_not_cached(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    monkeypatch.setattr(downloads, "MOST_BYTES", 1 << 20)
    with pytest.raises(InputError, match=says) as caught:
        download(f"{server}/{name}", "any")
    assert name in str(caught.value)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_server_that_always_fails_is_left_alone(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads.time, "sleep", lambda _: None)
    asked = []

    def fail(url: str, *_: object) -> bytes:
        asked.append(url)
        raise downloads._TemporaryError("HTTP 503")

    monkeypatch.setattr(downloads, "_fetch", fail)
    for number in range(100):
        with pytest.raises(downloads.LaterError):
            download(f"http://a.cn/{number}.png")
    assert len(asked) == downloads.MOST_FAILURES
    with pytest.raises(downloads.LaterError, match=r"a\.cn failed 40 times"):
        download("http://a.cn/100.png")
    with pytest.raises(downloads.LaterError, match="503"):
        download("http://b.cn/0.png")


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1/a.jpg",
        "http://localhost/a.jpg",
        "http://[::1]/a.jpg",
        "http://[::ffff:127.0.0.1]/a.jpg",
        "http://10.0.0.1/a.jpg",
        "http://192.168.1.1/a.jpg",
        "http://169.254.169.254/latest/meta-data",
        "http://0.0.0.0/a.jpg",
        "http://2130706433/a.jpg",
        "http://127.1/a.jpg",
    ],
)
@pytest.mark.usefixtures("server")
def test_an_address_inside_this_network_is_refused(address: str) -> None:
    with pytest.raises(InputError, match=r"inside this machine|cannot be downloaded"):
        download(address)
    assert not Shop.asked


def test_a_name_that_leads_inside_is_refused_also_after_a_redirection(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = server.rpartition(":")[2]
    with pytest.raises(InputError, match="inside this machine") as caught:
        download(f"http://localhost:{port}/a.png")
    assert f"http://localhost:{port}/a.png" in str(caught.value)
    assert not Shop.asked
    found = ["93.184.216.34"]
    monkeypatch.setattr(downloads, "_require_public", lambda host, places: found.append(host))
    download(f"http://localhost:{port}/to-a.png")
    assert found[1:] == ["localhost", "localhost"]  # each connection is checked


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    "address",
    ["ftp://a.cn/x.jpg", "file:///etc/passwd", "s3://bucket/x.jpg", "http://", "http://u:p@a.cn/x.jpg",
     "http://a.cn:99999/x.jpg", "http://[::1/x.jpg"],
)  # fmt: skip
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(InputError, match="downloaded"):
        ImageAccess().read(place_of(address, Path("/root")) if is_address(address) else address)


def test_the_oldest_images_leave_the_cache(tmp_path: Path) -> None:
    for number in range(10):
        path = tmp_path / f"{number % 3}" / f"{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(100))
        os.utime(path, (number, number))
    delete_oldest(tmp_path, 1000)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 10
    delete_oldest(tmp_path, 999)
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["3", "4", "5", "6", "7", "8", "9"]  # 80 % of the limit at most


def test_a_full_cache_is_noticed_while_images_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []
    monkeypatch.setenv("XMR_CACHE", str(tmp_path))
    monkeypatch.setattr(download_cache, "_SIZED_EVERY", 2)
    monkeypatch.setattr(download_cache, "_stored", 0)
    monkeypatch.setattr(download_cache, "delete_oldest", looks.append)
    for number in range(5):
        download_cache.store(f"https://a.cn/{number}", b"x")
    assert looks == [tmp_path / "images"] * 3


def test_paths_are_no_addresses() -> None:
    for path in (
        "a.jpg",
        "/a/b.jpg",
        "a:b.jpg",
        "C:\\x.jpg",
        "图/a.jpg",
        "//server",
        "http:/a.jpg",
    ):
        assert not is_address(path), path
    assert is_address("//img.alicdn.com/a.jpg")


def test_every_address_costs_its_own_row(server: str, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(picture(2))
    rows = ["id,image,title", f"A,{server}/a.png,红裙", f"B,{server}/gone.png,包", "C,b.png,鞋"]
    rows += [f"{n},{server}/{n}.png,帽{n}" for n in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(rows), "utf-8")
    done = import_table(tmp_path / "t.csv", tmp_path / "o", ImportOptions(download="any"))
    assert done.splits["train"].images == 42
    (error,) = done.left_out
    assert "t.csv:3 (id B)" in str(error)
    assert f"{server}/gone.png" in str(error)
    assert "HTTP 404" in str(error)
    images = dict(iter_images(MugeFolder(tmp_path / "o").images_path("train")))
    assert picture(2) in images.values()
    for choice, says in (("never", "--download never"), ("public", "--download any")):
        done = import_table(tmp_path / "t.csv", tmp_path / choice, ImportOptions(download=choice))
        assert done.splits["train"].images == 1 + 41 * (choice == "public")  # from the cache
        assert says in str(done.left_out[0])
