"""Splats from .spz files of versions 1 to 4 (Niantic, https://github.com/nianticlabs/spz).

Sections of all splats, one after the other: positions, opacities, colours, scales, rotations, spherical harmonics. To
version 3 they are one gzip stream behind a header of 16 bytes, in version 4 a zstd stream each behind one of 32.
"""

import itertools
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from flame_fitting.avatar.splats import Splats, check_count, made_splats
from flame_fitting.errors import InputError

VERSIONS = (1, 2, 3, 4)
_MAGIC = 0x5053474E
_COLOR = 0.15
"""What a byte of colour has of the first coefficient: wider than 0..1."""
_MOST_DEGREE = 4
_ANTIALIASED, _EXTENSIONS = 1, 2
_RATIO = 1100
"""No gzip or zstd stream of such data is larger when it is unpacked, times its packed size."""


def read_spz(content: bytes, path: Path, note: Callable[[str], None]) -> Splats:
    """The splats. Raises ValueError where the file is damaged, InputError for a version that is not known."""
    if content[:2] == b"\x1f\x8b":
        inflate = zlib.decompressobj(wbits=31)
        head = _inflated(inflate, content, 16)
        version, count, degree, fraction, flags = _header(head, path)
        if version > 3:
            raise ValueError(f"a gzip stream of version {version}")
        sizes = _sizes(version, count, degree)
        _check_ratio(sum(sizes), len(content))
        data = _inflated(inflate, inflate.unconsumed_tail, sum(sizes))
        if len(data) < sum(sizes):
            raise ValueError("it is cut short")
        sections = [data[a:b] for a, b in itertools.pairwise(np.cumsum([0, *sizes]))]
    else:
        version, count, degree, fraction, flags = _header(content, path)
        if version < 4:
            raise ValueError(f"version {version} without its gzip stream")
        sizes = _sizes(version, count, degree)
        _check_ratio(sum(sizes), len(content))
        sections = _streams(content, sizes)
    if flags & _EXTENSIONS:
        note("extensions of the .spz file are not read")
    rows = [np.frombuffer(section, dtype=np.uint8).reshape(count, -1) for section in sections]
    positions, alphas, colors, scales, rotations, rest = rows
    sh = ((colors / 255.0 - 0.5) / _COLOR)[:, None]
    if rest.shape[1]:
        sh = np.concatenate([sh, (rest.astype(np.float64).reshape(count, -1, 3) - 128.0) / 128.0], axis=1)
    means = positions.copy().view("<f2").astype(np.float64) if version == 1 else _fixed_point(positions, fraction)
    quats = _smallest_three(rotations) if version >= 3 else _first_three(rotations)
    sizes_of = np.exp(scales / 16.0 - 10.0)
    return made_splats(path, note, means, sizes_of, quats, alphas[:, 0] / 255.0, sh, bool(flags & _ANTIALIASED))


def _inflated(inflate: "zlib._Decompress", packed: bytes, most: int) -> bytes:
    """The next `most` bytes (at least 1) of a gzip stream, or as many as there are."""
    try:
        return inflate.decompress(packed, most)
    except zlib.error as error:
        raise ValueError(str(error)) from None


def _header(head: bytes, path: Path) -> tuple[int, int, int, int, int]:
    if len(head) < 16:
        raise ValueError("it is cut short")
    magic, version, count, degree, fraction, flags = struct.unpack_from("<IIIBBB", head)
    if magic != _MAGIC:
        raise ValueError("it has no SPZ header")
    if version not in VERSIONS:
        known = f"{VERSIONS[0]} to {VERSIONS[-1]}"
        raise InputError(f"{path}: is SPZ version {version}, and {known} are read. Export it as .ply.")
    if degree > _MOST_DEGREE or fraction > 24:
        raise ValueError(f"degree {degree}, {fraction} fractional bits")
    return version, check_count(count, path), degree, fraction, flags


def _sizes(version: int, count: int, degree: int) -> list[int]:
    """Bytes of each section."""
    one = (6 if version == 1 else 9, 1, 3, 3, 4 if version >= 3 else 3, 3 * ((degree + 1) ** 2 - 1))
    return [count * size for size in one]


def _check_ratio(size: int, packed: int) -> None:
    if size > _RATIO * packed:
        raise ValueError(f"it cannot hold {size} bytes")


def _streams(content: bytes, sizes: list[int]) -> list[bytes]:
    """Sections of version 4, those without bytes left out in the file."""
    import zstandard

    wanted = [size for size in sizes if size]
    number, at = content[15], struct.unpack_from("<I", content, 16)[0]
    if len(content) < 32 or number != len(wanted) or at < 32 or at + 16 * number > len(content):
        raise ValueError("it is cut short, or its table of contents is damaged")
    table = np.frombuffer(content, dtype="<u8", count=2 * number, offset=at).reshape(-1, 2)
    start, found = at + 16 * number, []
    for (packed, size), expected in zip(table.tolist(), wanted, strict=True):
        if size != expected or start + packed > len(content):
            raise ValueError("it is cut short, or its table of contents is damaged")
        try:
            reader = zstandard.ZstdDecompressor().stream_reader(content[start : start + packed])
            data = reader.read(expected)  # never more, whatever the stream says of itself
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from None
        if len(data) != expected:
            raise ValueError("it is cut short")
        found.append(data)
        start += packed
    streams = iter(found)
    return [next(streams) if size else b"" for size in sizes]


def _fixed_point(data: UInt8[np.ndarray, "N 9"], fraction: int) -> Float[np.ndarray, "N 3"]:
    """Signed 24-bit numbers of which `fraction` bits are behind the point."""
    parts = data.reshape(len(data), 3, 3).astype(np.int32)
    whole = parts[..., 0] | parts[..., 1] << 8 | parts[..., 2] << 16
    return (whole - ((whole & 0x800000) << 1)) / float(1 << fraction)


def _first_three(data: UInt8[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 4"]:
    vector = data / 127.5 - 1.0
    return np.concatenate([np.sqrt(np.maximum(1.0 - (vector**2).sum(1, keepdims=True), 0.0)), vector], axis=1)


def _smallest_three(data: UInt8[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
    """The number of the largest part of x, y, z, w in two bits, then the others: a sign and 9 bits each."""
    words = data.copy().view("<u4")[:, 0].astype(np.int64)
    largest = words >> 30
    quats = np.zeros((len(words), 4))  # x, y, z, w
    for part in (3, 2, 1, 0):
        here = largest != part
        value = (words & 511) / 511.0 * np.sqrt(0.5) * np.where(words & 512, -1.0, 1.0)
        quats[here, part] = value[here]
        words = np.where(here, words >> 10, words)
    rest = np.sqrt(np.maximum(1.0 - (quats**2).sum(axis=1), 0.0))
    quats[np.arange(len(quats)), largest] = rest
    return quats[:, [3, 0, 1, 2]]
