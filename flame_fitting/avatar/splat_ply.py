"""Splats from PLY files: 3DGS's own layout, that of 2DGS, and PlayCanvas's compressed one."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from flame_fitting.avatar.bound_splats import BINDING, Bound
from flame_fitting.avatar.ply import element_rows, vertex_properties
from flame_fitting.avatar.splats import Splats, check_count, made_splats, sh_of_colors, sigmoid
from flame_fitting.errors import InputError

MARKS = ("rot_0", "scale_0", "f_dc_0", "packed_position")
"""A PLY file with one of these properties of its vertices holds splats."""
_CHUNK = 256
_SH_COUNTS = {0: 1, 9: 4, 24: 9, 45: 16, 72: 25}
"""Number of f_rest properties: coefficients a channel."""
_FLAT = 1e-3
"""Thickness of 2DGS's splats, which have none, as a part of their shorter side."""

_LEAST_SHARE, _LEAST_SCALE = 1e-7, 1e-30
"""Opacities (from 0 and 1) and standard deviations that logarithms are taken of."""


def holds_splats(content: bytes) -> bool:
    """Whether the header of a PLY file names splats; a mesh or a point cloud has none of `MARKS`."""
    return not vertex_properties(content).isdisjoint(MARKS)


def read_splat_ply(content: bytes, path: Path, note: Callable[[str], None]) -> Splats | Bound:
    """Splats in the world, or those that GaussianAvatars binds to FLAME's faces and that have still to be posed.

    Raises ValueError where the file is damaged, InputError where it is whole but no splats can be made of it.
    """
    names = vertex_properties(content)
    if "packed_position" in names:
        return _read_compressed(content, path, note)
    missing = {"x", "y", "z", "opacity", "scale_0", "scale_1", "rot_0", "rot_1", "rot_2", "rot_3"} - names
    if missing:
        raise InputError(
            f"{path}: looks like Gaussian splats, but lacks {', '.join(sorted(missing))}. Export it again in the "
            "layout of 3DGS: x, y, z, f_dc_*, f_rest_*, opacity, scale_*, rot_*."
        )
    rest = _coefficients(names, path)
    rows = element_rows(content, ("vertex",))["vertex"]
    check_count(len(rows), path)

    def columns(*chosen: str) -> np.ndarray:
        return np.stack([rows[name].astype(np.float64) for name in chosen], axis=1)

    with np.errstate(over="ignore", invalid="ignore"):
        scales = np.exp(columns(*[f"scale_{k}" for k in range(3) if f"scale_{k}" in names]))
    if scales.shape[1] == 2:
        scales = np.concatenate([scales, _FLAT * scales.min(axis=1, keepdims=True)], axis=1)
        note("splats without thickness (2DGS)")
    sh = columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    if rest:  # all of red, then all of green, then all of blue
        others = columns(*[f"f_rest_{k}" for k in range(rest)]).reshape(len(rows), 3, rest // 3)
        sh = np.concatenate([sh, others.swapaxes(1, 2)], axis=1)
    means, quats = columns("x", "y", "z"), columns("rot_0", "rot_1", "rot_2", "rot_3")
    opacities = sigmoid(columns("opacity")[:, 0])
    if BINDING in names:
        return Bound(means, scales, quats, opacities, sh, columns(BINDING)[:, 0])
    return made_splats(path, note, means, scales, quats, opacities, sh)


def _coefficients(names: set[str], path: Path) -> int:
    """Number of f_rest properties. Raises InputError where the colours are no spherical harmonics."""
    base = {name for name in names if re.fullmatch(r"f_dc_\d+", name)}
    rest = {name for name in names if re.fullmatch(r"f_rest_\d+", name)}
    wanted = {f"f_rest_{k}" for k in range(len(rest))}
    if base != {"f_dc_0", "f_dc_1", "f_dc_2"} or len(rest) not in _SH_COUNTS or rest != wanted:
        raise InputError(
            f"{path}: its colours are no spherical harmonics: looked for f_dc_0 to f_dc_2 and 0, 9, 24 or 45 f_rest_*, "
            f"found {len(base)} f_dc_* and {len(rest)} f_rest_*. Splats whose colours a network makes cannot be read; "
            "export them with colours of their own."
        )
    return len(rest)


def _read_compressed(content: bytes, path: Path, note: Callable[[str], None]) -> Splats:
    """PlayCanvas's layout: values of 256 splats at a time between the bounds that their chunk names."""
    rows = element_rows(content, ("chunk", "vertex", "sh"))
    if "chunk" not in rows or "vertex" not in rows:
        raise ValueError("packed splats without chunks")
    chunks, packed = rows["chunk"], rows["vertex"]
    count = check_count(len(packed), path)
    if len(chunks) * _CHUNK < count:
        raise ValueError(f"{len(chunks)} chunks are too few for {count} splats")
    at = np.arange(count) // _CHUNK
    with np.errstate(invalid="ignore"):
        position, rotation, scale, color = (
            packed[f"packed_{name}"].astype(np.int64) for name in ("position", "rotation", "scale", "color")
        )

    def between(share: np.ndarray, low: tuple[str, ...], high: tuple[str, ...]) -> np.ndarray:
        lows = np.stack([chunks[name].astype(np.float64) for name in low], axis=1)[at]
        highs = np.stack([chunks[name].astype(np.float64) for name in high], axis=1)[at]
        return lows + share * (highs - lows)

    def bounds(kind: str, axes: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return tuple(f"min_{kind}{axis}" for axis in axes), tuple(f"max_{kind}{axis}" for axis in axes)

    with np.errstate(over="ignore", invalid="ignore"):
        means = between(_unpacked(position, (11, 10, 11)), *bounds("", "xyz"))
        scales = np.exp(between(_unpacked(scale, (11, 10, 11)), *bounds("scale_", "xyz")))
        colors = _unpacked(color, (8, 8, 8, 8))
        names = chunks.dtype.names or ()
        base = between(colors[:, :3], *bounds("", "rgb")) if "min_r" in names else colors[:, :3]
    sh = sh_of_colors(base)[:, None]
    if "sh" in rows:
        rest = len(rows["sh"].dtype.names or ())
        if rest not in _SH_COUNTS or len(rows["sh"]) != count:
            raise ValueError(f"{rest} spherical harmonics for {len(rows['sh'])} of {count} splats")
        levels = np.stack([rows["sh"][f"f_rest_{k}"] for k in range(rest)], axis=1).astype(np.float64)
        values = 8.0 * (np.where(levels == 255, 1.0, np.where(levels == 0, 0.0, (levels + 0.5) / 256)) - 0.5)
        sh = np.concatenate([sh, values.reshape(count, 3, rest // 3).swapaxes(1, 2)], axis=1)
    quats = smallest_three(rotation)
    return made_splats(path, note, means, scales, quats, colors[:, 3], sh)


def splat_ply(splats: Splats, binding: Int[np.ndarray, " N"] | None = None, degree: int | None = None) -> bytes:
    """A file in 3DGS's own layout (binary, little-endian, all float), with GaussianAvatars' faces where given.

    `degree`: of its spherical harmonics, filled up with zeros; by default that of the splats.
    """
    count = len(splats)
    rest = np.zeros((count, 3, ((splats.degree if degree is None else degree) + 1) ** 2 - 1))
    rest[..., : splats.sh.shape[1] - 1] = splats.sh[:, 1:].swapaxes(1, 2)
    share = np.clip(splats.opacities.astype(np.float64), _LEAST_SHARE, 1 - _LEAST_SHARE)
    columns = {
        ("x", "y", "z"): splats.means,
        ("nx", "ny", "nz"): np.zeros((count, 3)),
        tuple(f"f_dc_{k}" for k in range(3)): splats.sh[:, 0],
        tuple(f"f_rest_{k}" for k in range(3 * rest.shape[2])): rest.reshape(count, -1),
        ("opacity",): np.log(share / (1 - share))[:, None],
        tuple(f"scale_{k}" for k in range(3)): np.log(np.maximum(splats.scales, _LEAST_SCALE)),
        tuple(f"rot_{k}" for k in range(4)): splats.quats,
    }
    if binding is not None:
        columns[(BINDING,)] = binding[:, None]
    names = [name for group in columns for name in group]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    header += [*(f"property float {name}" for name in names), "end_header", ""]
    return "\n".join(header).encode() + np.concatenate(list(columns.values()), axis=1).astype("<f4").tobytes()


def _unpacked(words: Int[np.ndarray, " N"], bits: tuple[int, ...]) -> Float[np.ndarray, "N k"]:
    """Fields of 32-bit words, the first in the highest bits, as shares 0..1."""
    shifts = np.cumsum(bits[::-1])[::-1] - np.array(bits)
    most = (1 << np.array(bits, dtype=np.int64)) - 1
    return (words[:, None] >> shifts & most) / most


def smallest_three(words: Int[np.ndarray, " N"]) -> Float[np.ndarray, "N 4"]:
    """Quaternions w, x, y, z of which the largest part is left out: its number (2 bits), then the others in 10 each."""
    others = (_unpacked(words, (2, 10, 10, 10))[:, 1:] - 0.5) * np.sqrt(2.0)
    largest = words >> 30 & 3
    quats = np.empty((len(words), 4))
    order = np.array([[0, 1, 2, 3], [1, 0, 2, 3], [2, 0, 1, 3], [3, 0, 1, 2]])[largest]
    values = np.concatenate([np.sqrt(np.maximum(1.0 - (others**2).sum(1, keepdims=True), 0.0)), others], axis=1)
    np.put_along_axis(quats, order, values, axis=1)
    return quats
