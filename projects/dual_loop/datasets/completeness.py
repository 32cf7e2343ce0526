"""Whether all of a JPEG or PNG file has arrived.

What did not arrive is missing at the end, or reads as blocks of zeros. Decoders take some of that for the picture:
docs/decisions.md, "Half-arrived pictures".
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

#: Blocks of disks, archives and networks are not smaller.
HOLE = bytes(512)
JPEG, PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'

_NO_FRAME = (0xC4, 0xC8, 0xCC)  # the markers between those of frames that are none
_ARITHMETIC = range(0xC9, 0xD0)
_ALONE = (0x01, *range(0xD0, 0xD8))  # markers without a segment
# In the data of a scan a byte of 255 is followed by 0, a restart marker has no segment, and further 255s are filling.
_SCAN_ENDS = re.compile(rb'\xff+[^\x00\xd0-\xd7\xff]')


class Incomplete(ValueError):
    """Something of the file is missing; the message says what, and fits behind the name of the file."""


@dataclass(frozen=True)
class Scan:
    """The compressed data of one pass over a JPEG picture.

    Attributes:
        start, stop: place in the file, in bytes.
        bands: (component, frequency) of each coefficient that it tells.
        bits_left: how many of its lowest bits are left to later passes.
        zeros_may_be_flat: whether a run of zero bits can stand for a plain part of a picture.
    """

    start: int
    stop: int
    bands: list[tuple[int, int]]
    bits_left: int
    zeros_may_be_flat: bool


def check_png(data: bytes) -> None:
    """Every chunk is there with its check sum, up to the last one; what follows does not count.

    Raises:
        Incomplete: if not.
    """
    place, kind = len(PNG), b''
    while kind != b'IEND':
        if place + 12 > len(data):
            raise Incomplete('is truncated: its end is missing')
        length, kind = struct.unpack_from('>I4s', data, place)
        body = data[place + 4:place + 8 + length]
        place += 12 + length
        if place > len(data):
            raise Incomplete('is truncated: its end is missing')
        if data[place - 4:place] != zlib.crc32(body).to_bytes(4, 'big'):
            raise Incomplete(f'is damaged or truncated: the check sum before byte {place} is wrong')


def check_jpeg(data: bytes, decode: Callable[[bytes], torch.Tensor | None]) -> None:
    """The file goes to the end of its picture, and no scan has a hole; what follows the end does not count.

    A hole is a run of zeros that no encoder writes. Where the all-zero codes of the Huffman tables say "as before,
    nothing more", zeros may be a large plain area. A hole then yields too many blocks, so that the scan is complete
    before its data end, and its last bytes can be others without changing a pixel; or it has taken later scans away.

    Args:
        data: the file's bytes.
        decode: gives the pixels, or None for what it cannot decode.

    Raises:
        Incomplete: if not.
    """
    bits_left: dict[tuple[int, int], int] = {}
    zeros = 0
    for scan in jpeg_scans(data):
        bits_left |= dict.fromkeys(scan.bands, scan.bits_left)
        place = data.find(HOLE, scan.start, scan.stop)
        if place >= 0 and not (scan.zeros_may_be_flat and _end_matters(data, scan, decode)):
            raise Incomplete(f'has not fully arrived: zeros in the middle of the picture, from byte {place} on')
        zeros = max(zeros, place)
    if zeros and (any(bits_left.values()) or len(bits_left) % 64):
        raise Incomplete(f'has not fully arrived: parts of the picture are missing, and from byte {zeros} on are zeros')


def jpeg_scans(data: bytes) -> Iterator[Scan]:
    """The scans of a JPEG file (of the first picture if there are several), up to the marker of its end.

    Raises:
        Incomplete: that marker is missing, or another picture begins before it.
    """
    place, frame = 2, 0
    zero_symbols: dict[int, int] = {}  # number of a Huffman table -> symbol of its all-zero code
    while (place := data.find(b'\xff', place)) >= 0 and place + 1 < len(data):
        marker = data[place + 1]
        if marker in (0x00, 0xFF) or marker in _ALONE:
            place += 1 if marker == 0xFF else 2
            continue
        if marker == 0xD9:
            return
        start = place + 4
        place += 2 + int.from_bytes(data[place + 2:start], 'big')
        if marker == 0xD8 or place < start or place > len(data):
            break
        if marker == 0xC4:
            zero_symbols |= _zero_symbols(data[start:place])
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            frame = marker
        elif marker == 0xDA:
            found = _SCAN_ENDS.search(data, place)
            stop = found.start() if found else len(data)
            yield _scan(place, stop, data[start:place], zero_symbols, frame in _ARITHMETIC)
            place = stop
    raise Incomplete('is truncated or damaged: the end of the picture is missing')


def _zero_symbols(segment: bytes) -> dict[int, int]:
    """Of each Huffman table (0 and on for averages, 16 and on for details) its first symbol, with the all-zero code."""
    symbols, place = {}, 0
    while place + 17 <= len(segment):
        count = sum(segment[place + 1:place + 17])
        symbols[segment[place]] = segment[place + 17] if count and place + 17 < len(segment) else -1
        place += 17 + count
    return symbols


def _scan(start: int, stop: int, header: bytes, zero_symbols: dict[int, int], is_arithmetic: bool) -> Scan:
    count = header[0] if header else 0
    if len(header) < 4 + 2 * count:
        raise Incomplete(f'is damaged before byte {start}')
    components, tables = header[1:1 + 2 * count:2], header[2:2 + 2 * count:2]
    first, last, bits = header[1 + 2 * count:4 + 2 * count]
    bands = [(component, band) for component in components for band in range(first, min(last, 63) + 1)]
    # Zeros in a refinement of averages leave them as they are. In all others the symbol must be 0: the difference of
    # an average to the one before has no bits; the block has no further details. For several blocks without details at
    # once there are other symbols, and encoders do not write two of them in a row.
    averages = [zero_symbols.get(table >> 4, 0) for table in tables] if first == 0 and not bits >> 4 else []
    details = [zero_symbols.get(0x10 | table & 15, 0) for table in tables] if last else []
    return Scan(start, stop, bands, bits & 15, is_arithmetic or not any(averages + details))


def _end_matters(data: bytes, scan: Scan, decode: Callable[[bytes], torch.Tensor | None]) -> bool:
    """Whether other bytes at the end of a scan give other pixels."""
    first = scan.stop - 16
    while data[first - 1] == 0xFF:  # would make a marker
        first -= 1
    others = bytes(0x55 if each != 0x55 else 0x2A for each in data[first:scan.stop])
    now, then = decode(data), decode(data[:first] + others + data[scan.stop:])
    return now is None or then is None or not torch.equal(now, then)
