"""Small files of splats in every layout that is read, and the splats that are in them."""

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import zstandard

from flame_fitting.avatar.splats import SH_C0, Splats


def some_splats(count: int = 300, degree: int = 3, seed: int = 0) -> Splats:
    """Splats anywhere in a box of 1, of any shape."""
    rng = np.random.default_rng(seed)
    quats = rng.normal(size=(count, 4))
    return Splats(
        rng.uniform(-0.5, 0.5, (count, 3)),
        np.exp(rng.uniform(-6, -3, (count, 3))).astype(np.float32),
        (quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32),
        rng.uniform(0.05, 0.95, count).astype(np.float32),
        rng.uniform(-0.4, 0.4, (count, (degree + 1) ** 2, 3)).astype(np.float32),
    )


def columns(splats: Splats) -> dict[str, np.ndarray]:
    """The properties of 3DGS's PLY files."""
    rest = splats.sh[:, 1:].swapaxes(1, 2).reshape(len(splats), -1)
    values = {name: splats.means[:, k] for k, name in enumerate("xyz")}
    values |= {name: np.zeros(len(splats)) for name in ("nx", "ny", "nz")}
    values |= {f"f_dc_{k}": splats.sh[:, 0, k] for k in range(3)}
    values |= {f"f_rest_{k}": rest[:, k] for k in range(rest.shape[1])}
    values["opacity"] = np.log(splats.opacities / (1 - splats.opacities.astype(np.float64)))
    values |= {f"scale_{k}": np.log(splats.scales[:, k]) for k in range(3)}
    return values | {f"rot_{k}": 2.5 * splats.quats[:, k] for k in range(4)}  # trained ones have any length


def write_ply(path: Path, values: dict[str, np.ndarray], form: str = "binary_little_endian") -> Path:
    count = len(next(iter(values.values())))
    header = f"ply\nformat {form} 1.0\nelement vertex {count}\n"
    header += "".join(f"property float {name}\n" for name in values) + "end_header\n"
    table = np.stack([np.asarray(value, dtype=np.float32) for value in values.values()], axis=1)
    if form == "ascii":
        body = "".join(" ".join(f"{value:.9g}" for value in row) + "\n" for row in table).encode()
    else:
        body = table.astype(">f4" if "big" in form else "<f4").tobytes()
    path.write_bytes(header.encode() + body)
    return path


def write_splat(path: Path, splats: Splats) -> Path:
    rows = np.zeros(len(splats), dtype=[("m", "<f4", 3), ("s", "<f4", 3), ("c", "u1", 4), ("q", "u1", 4)])
    rows["m"], rows["s"] = splats.means, splats.scales
    colors = np.concatenate([0.5 + SH_C0 * splats.sh[:, 0], splats.opacities[:, None]], axis=1)
    rows["c"] = np.round(255 * colors.clip(0, 1))
    rows["q"] = np.round(splats.quats * 128 + 128).clip(0, 255)
    path.write_bytes(rows.tobytes())
    return path


def spz_sections(splats: Splats, version: int, fraction: int = 12) -> list[bytes]:
    fixed = np.round(splats.means * (1 << fraction)).astype(np.int64)
    places = np.stack([fixed & 255, fixed >> 8 & 255, fixed >> 16 & 255], axis=2).astype(np.uint8).tobytes()
    if version == 1:
        places = splats.means.astype("<f2").tobytes()
    quats = splats.quats[:, [1, 2, 3, 0]].astype(np.float64)
    if version < 3:
        quats *= np.where(quats[:, 3:] < 0, -1, 1)
        turns = np.round(quats[:, :3] * 127.5 + 127.5).astype(np.uint8).tobytes()
    else:
        words = []
        for row in quats:
            largest = int(np.abs(row).argmax())
            row = row * np.sign(row[largest])
            word = largest
            for k in (k for k in range(4) if k != largest):
                word = word << 10 | int(row[k] < 0) << 9 | round(abs(row[k]) * np.sqrt(2) * 511)
            words.append(word)
        turns = np.array(words, dtype="<u4").tobytes()

    def levels(values: np.ndarray) -> bytes:
        return np.round(values).clip(0, 255).astype(np.uint8).tobytes()

    return [
        places,
        levels(255 * splats.opacities),
        levels(255 * (0.15 * splats.sh[:, 0] + 0.5)),
        levels(16 * (np.log(splats.scales) + 10)),
        turns,
        levels(128 * splats.sh[:, 1:] + 128),
    ]


def write_spz(path: Path, splats: Splats, version: int, flags: int = 0, count: int | None = None) -> Path:
    sections = spz_sections(splats, min(version, 4))
    head = struct.pack(
        "<IIIBBB", 0x5053474E, version, len(splats) if count is None else count, splats.degree, 12, flags
    )
    if version < 4:
        path.write_bytes(gzip.compress(head + b"\0" + b"".join(sections)))
        return path
    packed = [(zstandard.compress(section), len(section)) for section in sections if section]
    head += struct.pack("<BI12x", len(packed), 32)
    table = b"".join(struct.pack("<QQ", len(data), size) for data, size in packed)
    path.write_bytes(head + table + b"".join(data for data, _ in packed))
    return path


def bound_columns(splats: Splats, face: np.ndarray) -> dict[str, np.ndarray]:
    """GaussianAvatars' properties: the splats are in the frames of faces."""
    return columns(splats) | {"binding_0": face}


def degree_of(splats: Splats, degree: int) -> Splats:
    """The first coefficients alone."""
    return replace(splats, sh=splats.sh[:, : (degree + 1) ** 2])
