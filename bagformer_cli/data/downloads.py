"""Download the images that a table names by address: http and https, with limits and a cache.

A table may come from a stranger. So an address that leads into this machine or its network
(loopback, private and link-local addresses) is refused unless the user allows it, also after a
redirection; and a download has a limit of size and of time.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import suppress
from email.message import Message
from typing import IO, Literal
from urllib.parse import quote, urlsplit, urlunsplit

from bagformer_cli import __version__
from bagformer_cli.data.download_cache import cache_file, store
from bagformer_cli.data.images import open_image
from bagformer_cli.errors import DataError, InputError, XmrError
from bagformer_cli.messages import tr

Download = Literal["public", "any", "never"]
"""Which addresses are downloaded: public ones, those of private networks too, or none."""

MOST_BYTES = 64 << 20
"""Size limit of one image."""
WAIT_SECONDS = 20.0
"""Time limit of a connection and of each part of the answer."""
TOTAL_SECONDS = 120.0
"""Time limit of one image, also for a server that sends a byte now and then."""
MOST_FAILURES = 40
"""After this number of failures in a row, this process no longer asks a server: a table of a
million addresses must not wait for each when the network is down."""
_failures: Counter[str] = Counter()  # of each server, in a row
_TRIES = 2
_PORTS = {"http": 80, "https": 443}
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.I)  # two letters or more: C:// is a disk
_NO_SCHEME = re.compile(r"//[\w-]+(\.[\w-]+)+/")  # Taobao writes //img.alicdn.com/…


def is_address(text: str) -> bool:
    """Say whether a cell is an address and not a path.

    >>> is_address("https://a.cn/1.jpg"), is_address("//img.a.cn/1.jpg"), is_address("a/1.jpg")
    (True, True, False)
    """
    if "//" not in text:  # called for every row
        return False
    return _ADDRESS.match(text) is not None or _NO_SCHEME.match(text) is not None


def download(address: str, allowed: Download = "public") -> bytes:
    """Return the image at an address: from the cache, else from the network.

    Args:
        address: An http or https address.
        allowed: Which addresses are downloaded.

    Raises:
        InputError: It may not be downloaded, it cannot be, or it is too large.
        DataError: It is not an image.
        LaterError: The server does not answer, or says that it cannot answer now.
    """
    url = _checked(address)
    if allowed == "never":
        raise _failed(address, tr("an address; downloads are switched off (--download never)"))
    with suppress(OSError):
        return cache_file(url).read_bytes()
    host = urlsplit(url).netloc
    for attempt in range(_TRIES):
        failures = _failures[host]
        if failures >= MOST_FAILURES:
            found = tr("{host} failed {n} times and is left alone", host=host, n=failures)
            raise LaterError(tr("The image cannot be downloaded."), where=address, found=found)
        try:
            data = _fetch(url, address, allowed)
            _failures[host] = 0
            break
        except InputError as error:
            error.where = error.where or address
            raise
        except _TemporaryError as error:
            _failures[host] += 1
            if attempt == _TRIES - 1:
                message = tr("The image cannot be downloaded.")
                raise LaterError(message, where=address, found=error.found) from None
            time.sleep(0.5)
    open_image(data, address)  # a page that says "not found" must not stay in the cache
    store(url, data)
    return data


class LaterError(DataError):
    """A download that failed, but may succeed when the command runs again."""


class _TemporaryError(Exception):
    """A failure that another try may not have."""

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found


def _checked(address: str) -> str:
    """Return the address with a scheme, without a fragment, and with %-escapes where needed."""
    text = f"https:{address}" if address.startswith("//") else address
    try:
        parts = urlsplit(text)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode()
    except (ValueError, UnicodeError):
        raise _failed(address, tr("an address that is not valid")) from None
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not host or parts.username is not None:
        raise InputError(
            tr("This address cannot be downloaded."),
            where=address,
            expected=tr("a path, or an address that starts with http:// or https://"),
        )
    place = f"[{host}]" if ":" in host else host
    if port is not None and port != _PORTS[scheme]:
        place += f":{port}"
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]")
    return urlunsplit((scheme, place, path, query, ""))


def _fetch(url: str, address: str, allowed: Download) -> bytes:
    deadline = time.monotonic() + TOTAL_SECONDS
    request = urllib.request.Request(
        url, headers={"User-Agent": f"xmr/{__version__}", "Accept": "image/*,*/*;q=0.5"}
    )
    try:
        with _opener(url, allowed).open(request, timeout=WAIT_SECONDS) as answer:
            data = _body(answer, address, deadline)
            wanted = answer.headers.get("Content-Length", "")
            if wanted.isdigit() and int(wanted[:18]) != len(data):
                raise _TemporaryError(tr("the answer was cut off"))
            return data
    except urllib.error.HTTPError as error:
        error.close()
        found = f"HTTP {error.code} {error.reason}"
        if error.code == 429 or error.code >= 500:
            raise _TemporaryError(found) from None
        raise _failed(address, found) from None
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, XmrError):
            raise reason from None
        raise _TemporaryError(_words(reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _TemporaryError(_words(error)) from None


def _body(answer: IO[bytes], address: str, deadline: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := answer.read(1 << 16):
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            found = tr("more than {n} MB", n=MOST_BYTES >> 20)
            raise _failed(address, found)
        if time.monotonic() > deadline:
            raise _failed(address, tr("not complete after {n} seconds", n=int(TOTAL_SECONDS)))
    return b"".join(parts)


def _opener(url: str, allowed: Download) -> urllib.request.OpenerDirector:
    """Make an opener for http and https alone; the usual one also opens ftp and files."""
    host = urlsplit(url).hostname or ""
    opener = urllib.request.OpenerDirector()
    proxies = urllib.request.getproxies()
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirections(),
    ]
    if urlsplit(url).scheme in proxies and not urllib.request.proxy_bypass(host):
        if allowed != "any":
            _require_public(host, [host])  # names are resolved by the proxy
        handlers += [urllib.request.ProxyHandler(proxies)]
        handlers += [urllib.request.HTTPHandler(), urllib.request.HTTPSHandler()]
    else:
        handlers += [_Http(allowed), _Https(allowed)]
    for handler in handlers:
        opener.add_handler(handler)
    return opener


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follow at most five redirections, to http and https alone."""

    max_redirections = 5

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            url = _checked(newurl)
        except InputError:
            fp.close()
            found = tr("a redirection to {address}", address=newurl[:200])
            raise InputError(tr("The image cannot be downloaded."), found=found) from None
        return super().redirect_request(req, fp, code, msg, headers, url)  # type: ignore[arg-type]


class _Http(urllib.request.HTTPHandler):
    """Open connections to allowed addresses only."""

    def __init__(self, allowed: Download) -> None:
        super().__init__()
        self._allowed = allowed

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_connection(http.client.HTTPConnection, self._allowed), req)


class _Https(urllib.request.HTTPSHandler):
    """Open encrypted connections to allowed addresses only."""

    def __init__(self, allowed: Download) -> None:
        super().__init__()
        self._allowed = allowed

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_connection(http.client.HTTPSConnection, self._allowed), req)


def _connection(
    kind: type[http.client.HTTPConnection], allowed: Download
) -> type[http.client.HTTPConnection]:
    """Make a connection class that connects to the very address that was checked.

    A name could lead to another address when it is resolved a second time.
    """

    class Checked(kind):  # type: ignore[misc, valid-type]
        def connect(self) -> None:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            places = list(dict.fromkeys(str(one[4][0]) for one in found))
            if allowed != "any":
                _require_public(self.host, places)
            failure: OSError | None = None
            for place in places:
                try:
                    self.sock = socket.create_connection((place, self.port), self.timeout)
                    break
                except OSError as error:
                    failure = error
            else:
                raise failure or OSError(f"{self.host}: no address")
            if issubclass(kind, http.client.HTTPSConnection):
                context = ssl.create_default_context()
                self.sock = context.wrap_socket(self.sock, server_hostname=self.host)

    return Checked


def _require_public(host: str, places: list[str]) -> None:
    """Refuse a host that has an address inside this machine or its network."""
    for place in places:
        try:
            found = ipaddress.ip_address(place.partition("%")[0])
        except ValueError:  # a name: only a proxy can resolve it
            if place.rpartition(".")[2].lower() not in {"localhost", "local", "internal"}:
                continue
            found = ipaddress.ip_address("127.0.0.1")
        inner = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None) or found
        if not inner.is_global or inner.is_multicast:
            raise InputError(
                tr("This address is inside this machine or its network; it is not downloaded."),
                found=host if host == place else f"{host}: {place}",
                hint=tr("Pass --download any if you trust the table."),
            )


def _failed(address: str, found: str) -> InputError:
    return InputError(tr("The image cannot be downloaded."), where=address, found=found)


def _words(error: object) -> str:
    """Describe a failure of the network in a few words."""
    if isinstance(error, (TimeoutError, socket.timeout)):
        return tr("no answer for {n} seconds", n=int(WAIT_SECONDS))
    if isinstance(error, socket.gaierror):
        return tr("the name of the server is not known")
    if isinstance(error, ssl.SSLError):
        return tr("the certificate or the encryption is refused: {reason}", reason=error.reason)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return tr("the connection ended before the image was complete")
