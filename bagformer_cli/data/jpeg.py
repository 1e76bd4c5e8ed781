"""Find JPEG files whose pixels end too early although their end mark is there.

libjpeg fills what is missing with grey and only warns, and Pillow does not pass the warning on::

    whole      FFD8 … FFDA <data of all blocks>  FFD9
    cut off    FFD8 … FFDA <data of some blocks> FFD9      the rest becomes (128, 128, 128)

A grey end alone is no proof: the image may be grey there. So other data is inserted before the end
mark. A decoder that needs no more data ignores it; one that does decodes it, and its pixels change.

A progressive JPEG has the whole image in every scan, first blurred, then finer. Without its last
scans it stays blurred, also without an error. Its scan headers say which bits each one adds.
"""

from __future__ import annotations

import io
import re

from PIL import Image

_START_OF_SCAN, _END = 0xDA, b"\xff\xd9"
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # ends the data of a scan
_COEFFICIENTS = 64  # of a block
_ALL_BITS = 16  # more than a scan can leave out
_OTHER_DATA = bytes(range(1, 255)) * 64
_GREY = {127, 128}  # 127 in CMYK, which Pillow inverts


def grey_end(image: Image.Image) -> bool:
    """Say whether the last pixel has the grey of missing data.

    Args:
        image: A loaded JPEG.
    """
    last = image.getpixel((image.width - 1, image.height - 1))
    return set(last if isinstance(last, tuple) else (last,)) <= _GREY


def is_cut_off(data: bytes) -> bool:
    """Say whether the data of a JPEG file ends before its last block.

    Args:
        data: A file that can be decoded.
    """
    scan = _first_scan(data)
    end = data.find(_END, scan)
    if scan < 0 or end < 0:
        return False
    try:
        return _pixels(data) != _pixels(data[:end] + _OTHER_DATA + _END)
    except Exception:  # the end mark was part of a segment between two scans
        return False


def lacks_scans(data: bytes) -> bool:
    """Say whether a progressive JPEG ends before the scans that complete it.

    Args:
        data: A file that can be decoded.
    """
    missing_bits: dict[int, list[int]] = {}  # component: of each coefficient of its blocks
    at = _first_scan(data)
    while 0 <= at < len(data) - 4 and data[at : at + 2] != _END:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == _START_OF_SCAN:
            # length, n, n × (component, tables), first and last coefficient, bits: before, missing
            count = data[at + 4]
            parameters = data[at + 5 + 2 * count : at + 8 + 2 * count]
            if len(parameters) < 3:
                return True
            begin, end, bits = parameters
            for component in data[at + 5 : at + 5 + 2 * count : 2]:
                missing = missing_bits.setdefault(component, [_ALL_BITS] * _COEFFICIENTS)
                for coefficient in range(begin, min(end, _COEFFICIENTS - 1) + 1):
                    missing[coefficient] = bits & 15
        found = _MARKER.search(data, at + 2 + size)
        if found is None:
            break
        at = found.start()
    return any(any(missing) for missing in missing_bits.values())


def _first_scan(data: bytes) -> int:
    """Find the first scan after the header, which may contain a whole preview; −1: not found."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == _START_OF_SCAN:
            return at
        filler = data[at + 1] == 0xFF
        at += 1 if filler else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return -1


def _pixels(data: bytes) -> bytes:
    image = Image.open(io.BytesIO(data), formats=["JPEG"])
    image.draft(None, (1, 1))  # an eighth of the size: enough to see a difference
    return image.tobytes()
