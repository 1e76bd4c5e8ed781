r"""Read an LMDB without mapping it: every offset of the file is checked before it is followed.

The library ``lmdb`` maps the file and trusts it. A file that was cut off while it was copied, or
that somebody else made, can then end the process (SIGBUS, SIGSEGV). This reader needs ordinary
reads only; damage is a :class:`DataError`. It reads what the library writes on 64-bit
little-endian machines, without sub-databases. The file is a B+ tree of pages::

    page 0 and 1   meta pages: magic, page size, root page, last page, number of the transaction;
                   the one with the higher transaction counts
    branch page    header of 16 bytes | offsets of nodes | … free … | nodes: (page, smallest key)
    leaf page      header of 16 bytes | offsets of nodes | … free … | nodes: (key, value)
    overflow page  header of 16 bytes | a value that is too large for a leaf, over several pages

A page header is: number of the page (8 bytes), 2 unused, flags (2), end of the offsets (2), begin
of the nodes (2); of an overflow page the last four bytes are its number of pages.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from bagformer_cli.errors import DataError
from bagformer_cli.messages import tr
from bagformer_cli.opening import open_regular

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_HEADER = struct.Struct("<8x2xHHH")  # flags, end of the offsets, begin of the nodes
_META = struct.Struct("<II8x8xIHH8x8x8x8x8xIHHQQQQQQQ")
_NODE = struct.Struct("<HHHH")  # of a leaf: size (low, high), flags, length of the key
_BRANCH, _LEAF, _OVERFLOW = 1, 2, 4  # flags of a page
_BIG = 1  # flag of a node: the value is on overflow pages
_EMPTY = 2**64 - 1  # root of a tree without records
_DEPTH = 64  # no tree of 2^48 pages is deeper
_PAGE_SIZES = {1 << power for power in range(8, 17)}


class _Tree(NamedTuple):
    """The content of a meta page: page size, root page, last page, transaction."""

    page_size: int
    root: int
    last: int
    transaction: int


class _Page(NamedTuple):
    """A branch or leaf page: its bytes, its flags and the offsets of its nodes."""

    data: bytes
    flags: int
    nodes: tuple[int, ...]


class LmdbFile:
    """The records of an LMDB's main database.

    Args:
        folder: The folder with ``data.mdb``.

    Raises:
        InputError: The file cannot be opened.
        DataError: It is no LMDB, it has another version, or it was cut off.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "data.mdb"
        self._stream = open_regular(self.path)
        self._size = self._stream.seek(0, 2)
        try:
            self._tree = self._newest()
        except DataError:
            self._stream.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream.close()

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all (key, value) pairs in the order of the keys.

        Raises:
            DataError: A page is damaged.
        """
        if self._tree.root != _EMPTY:
            yield from self._below(self._tree.root, 0, set())

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key; None: there is no such key.

        Raises:
            DataError: A page is damaged.
        """
        number = self._tree.root
        if number == _EMPTY:
            return None
        for _ in range(_DEPTH):
            page = self._page(number)
            if page.flags & _LEAF:
                # Keys are in order; of a damaged page a wrong value is not found, never invented.
                low, high = 0, len(page.nodes)
                while low < high:
                    middle = (low + high) // 2
                    if self._key(page, page.nodes[middle]) < key:
                        low = middle + 1
                    else:
                        high = middle
                found = low < len(page.nodes) and self._key(page, page.nodes[low]) == key
                return self._value(page, page.nodes[low]) if found else None
            # The first node of a branch page has no key: it leads to all smaller ones.
            low, high = 1, len(page.nodes)
            while low < high:
                middle = (low + high) // 2
                if self._key(page, page.nodes[middle]) <= key:
                    low = middle + 1
                else:
                    high = middle
            number = self._child(page, page.nodes[low - 1])
        raise self._damaged(tr("the pages lead in a circle"))

    def _below(self, number: int, depth: int, seen: set[int]) -> Iterator[tuple[bytes, bytes]]:
        if depth > _DEPTH or number in seen:
            raise self._damaged(tr("the pages lead in a circle"))
        seen.add(number)
        page = self._page(number)
        for node in page.nodes:
            if page.flags & _LEAF:
                yield self._key(page, node), self._value(page, node)
            else:
                yield from self._below(self._child(page, node), depth + 1, seen)

    def _newest(self) -> _Tree:
        """Read the two meta pages; check that the file is as long as the newer one says."""
        first = self._meta(0)
        second = self._meta(first.page_size)
        if second.page_size != first.page_size:
            raise self._damaged(tr("the two headers differ"))
        tree = max(first, second, key=lambda meta: meta.transaction)
        wanted = (tree.last + 1) * tree.page_size
        if self._size < wanted:
            raise DataError(
                tr("The LMDB was cut off."),
                where=self.path,
                found=tr("{n} bytes", n=self._size),
                expected=tr("{n} bytes", n=wanted),
                hint=tr("Copy the file again; the copy may have been interrupted."),
            )
        return tree

    def _meta(self, offset: int) -> _Tree:
        data = self._bytes(offset, 16 + _META.size)
        magic, version, size, _, _, _, flags, _, *_, root, last, transaction = _META.unpack_from(
            data, 16
        )
        if magic != _MAGIC:
            raise DataError(
                tr("The LMDB cannot be read."), where=self.path, found=tr("it is no LMDB")
            )
        if version != _VERSION or size not in _PAGE_SIZES or flags & 0x04:
            raise DataError(
                tr("The LMDB cannot be read."),
                where=self.path,
                found=tr("version {n}, pages of {size} bytes", n=version, size=size),
                expected=tr("an LMDB of version {n} without repeated keys", n=_VERSION),
            )
        return _Tree(size, root, last, transaction)

    def _page(self, number: int) -> _Page:
        data = self._bytes(self._offset(number), self._tree.page_size)
        flags, lower, upper = _HEADER.unpack_from(data)
        if not flags & (_BRANCH | _LEAF) or not _HEADER.size <= lower <= upper <= len(data):
            raise self._damaged(tr("page {n} is no page of records", n=number))
        count = (lower - _HEADER.size) // 2
        nodes = struct.unpack_from(f"<{count}H", data, _HEADER.size)
        if any(not lower <= node <= len(data) - _NODE.size for node in nodes) or not count:
            raise self._damaged(tr("page {n} is no page of records", n=number))
        return _Page(data, flags, nodes)

    def _key(self, page: _Page, node: int) -> bytes:
        length = _NODE.unpack_from(page.data, node)[3]
        return page.data[node + _NODE.size : node + _NODE.size + length]

    def _child(self, page: _Page, node: int) -> int:
        low, middle, high, _ = _NODE.unpack_from(page.data, node)
        return int(low | middle << 16 | high << 32)

    def _value(self, page: _Page, node: int) -> bytes:
        low, high, flags, length = _NODE.unpack_from(page.data, node)
        size, begin = low | high << 16, node + _NODE.size + length
        if flags & ~_BIG:
            raise self._damaged(tr("a record holds another database"))
        if not flags & _BIG:
            value = page.data[begin : begin + size]
        else:
            (number,) = struct.unpack_from("<Q", page.data[begin : begin + 8].ljust(8, b"\xff"))
            offset = self._offset(number)
            if not _HEADER.unpack(self._bytes(offset, _HEADER.size))[0] & _OVERFLOW:
                raise self._damaged(tr("page {n} is no page of a large value", n=number))
            value = self._bytes(offset + _HEADER.size, size)
        if len(value) != size:
            raise self._damaged(tr("a value is longer than its page"))
        return value

    def _offset(self, number: int) -> int:
        if not 2 <= number <= self._tree.last:
            raise self._damaged(tr("page {n} does not exist", n=number))
        return number * self._tree.page_size

    def _bytes(self, offset: int, count: int) -> bytes:
        if offset + count > self._size:
            raise self._damaged(tr("the file ends too early"))
        self._stream.seek(offset)
        data = self._stream.read(count)
        if len(data) != count:
            raise self._damaged(tr("the file ends too early"))
        return data

    def _damaged(self, found: str) -> DataError:
        return DataError(
            tr("The LMDB cannot be read."),
            where=self.path,
            found=found,
            hint=tr("Copy the file again; the copy may have been interrupted."),
        )
