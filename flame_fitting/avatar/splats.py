"""3D Gaussian splats in memory, whatever file they came from, and what makes them safe to draw.

Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", ACM TOG 2023.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from flame_fitting.errors import InputError

SH_C0 = 0.28209479177387814
"""The constant basis function: a splat's base colour is 0.5 + SH_C0 * its first coefficient."""
MOST_SPLATS = 10_000_000
MOST_SH = 16
"""Coefficients a channel of degree 3; those of higher degrees are left out."""
NAN_SHARE = 0.01
"""Up to this share of the splats may hold values that are not numbers: they are left out."""
HUGE = 1.0
"""Largest standard deviation of a splat, in units of the radius around the middle 90 % of all."""
HUGE_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Splats:
    """N splats in the coordinates and unit of their file (the world)."""

    means: Float[np.ndarray, "N 3"]
    """Centres."""
    scales: Float[np.ndarray, "N 3"]
    """Standard deviations along the splat's own axes, world units, at least 0."""
    quats: Float[np.ndarray, "N 4"]
    """Unit quaternions w, x, y, z: from the splat's own axes to the world."""
    opacities: Float[np.ndarray, " N"]
    """0..1 at the centre."""
    sh: Float[np.ndarray, "N K 3"]
    """Real spherical harmonics, K = 1, 4, 9 or 16, in the order and with the signs of 3DGS. A colour is
    max(0, 0.5 + sum over k of sh[k] Y_k(d)), sRGB, d the unit direction in the world from the camera to the centre."""
    antialiased: bool = False
    """Whether the file says that they were trained with opacities that make up for the pixel filter (Mip-Splatting)."""
    row: Int[np.ndarray, " N"] | None = None
    """Number of each in its file; None where it has none."""

    def __len__(self) -> int:
        return len(self.means)

    @property
    def degree(self) -> int:
        """Of the spherical harmonics, 0..3."""
        return int(np.sqrt(self.sh.shape[1])) - 1

    @property
    def rotations(self) -> Float[np.ndarray, "N 3 3"]:
        """Columns are a splat's own axes in the world."""
        return rotations_of(self.quats)

    def taken(self, rows: Bool[np.ndarray, " N"] | Int[np.ndarray, " M"]) -> "Splats":
        """Only some of them."""
        return replace(
            self,
            means=self.means[rows],
            scales=self.scales[rows],
            quats=self.quats[rows],
            opacities=self.opacities[rows],
            sh=self.sh[rows],
            row=None if self.row is None else self.row[rows],
        )

    def normalized(self, center: Float[np.ndarray, " 3"], scale: float) -> "Splats":
        """In the frame of (x - center) / scale, which turns nothing, so that colours keep their directions."""
        scales = (self.scales.astype(np.float64) / scale).astype(np.float32)
        return replace(self, means=(self.means - center) / scale, scales=scales)


def joined(*parts: Splats) -> Splats:
    """All together; all have colours of one degree."""
    rows = [part.row for part in parts if part.row is not None]
    names = ("means", "scales", "quats", "opacities", "sh")
    values: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return replace(parts[0], **values, row=np.concatenate(rows) if len(rows) == len(parts) else None)


def rotations_of(quats: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 3 3"]:
    """Rotation matrices of unit quaternions w, x, y, z."""
    w, x, y, z = np.asarray(quats, dtype=np.float64).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(logits, dtype=np.float64)))


def sh_of_colors(colors: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """First coefficients of colours (sRGB, 0..1)."""
    return (np.asarray(colors, dtype=np.float64) - 0.5) / SH_C0


def check_count(count: int, path: Path) -> int:
    """The number that a header names, where it is possible. Raises InputError."""
    if count <= 0:
        raise InputError(f"{path}: there are no splats in it. Export it again.")
    if count > MOST_SPLATS:
        raise InputError(
            f"{path}: has {count:,} splats, and at most {MOST_SPLATS:,} are read. Cut the head out, for example with "
            "SuperSplat."
        )
    return count


def made_splats(
    path: Path,
    note: Callable[[str], None],
    means: np.ndarray,
    scales: np.ndarray,
    quats: np.ndarray,
    opacities: np.ndarray,
    sh: np.ndarray,
    antialiased: bool = False,
) -> Splats:
    """Splats of a file's values (as in `Splats`, but for the length of quaternions), checked. Raises InputError.

    Those with values that are not numbers are left out where they are few, and so are huge ones.
    """
    check_count(len(means), path)
    if sh.shape[1] > MOST_SH:
        note("spherical harmonics of a higher degree than 3 left out")
        sh = sh[:, :MOST_SH]
    lengths = np.linalg.norm(np.asarray(quats, dtype=np.float64), axis=1)
    fine = np.isfinite(means).all(1) & np.isfinite(scales).all(1) & np.isfinite(opacities)
    fine &= np.isfinite(sh).all((1, 2)) & np.isfinite(lengths) & (lengths > 1e-12) & (scales >= 0).all(1)
    share = 1.0 - float(fine.mean())
    if share > NAN_SHARE:
        raise InputError(
            f"{path}: {100 * share:.3g} % of its splats hold values that are not numbers or mean nothing (a rotation "
            f"of length 0, a negative scale); up to {100 * NAN_SHARE:g} % would be left out. Export it again."
        )
    if share > 0:
        note(f"{int((~fine).sum())} splats with values that are not numbers left out")
    with np.errstate(invalid="ignore", over="ignore"):
        splats = Splats(
            np.asarray(means, dtype=np.float64),
            np.asarray(scales, dtype=np.float32),
            (quats / np.maximum(lengths, 1e-12)[:, None]).astype(np.float32),
            np.clip(opacities, 0.0, 1.0).astype(np.float32),
            np.asarray(sh, dtype=np.float32),
            antialiased,
            np.arange(len(means)),
        )
    return _without_huge(splats if fine.all() else splats.taken(fine), path, note)


def middle(points: Float[np.ndarray, "N 3"], share: float = 0.9) -> tuple[Float[np.ndarray, " 3"], float]:
    """Median of points and the radius around it that holds `share` of them."""
    center = np.median(points, axis=0)
    return center, float(np.quantile(np.linalg.norm(points - center, axis=1), share))


def _without_huge(splats: Splats, path: Path, note: Callable[[str], None]) -> Splats:
    _, radius = middle(splats.means)
    if not np.isfinite(radius) or radius <= 0:
        raise InputError(f"{path}: all its splats lie in one place, or too far apart. Export it again.")
    huge = splats.scales.max(axis=1) > HUGE * radius
    if huge.mean() > HUGE_SHARE:
        raise InputError(
            f"{path}: {100 * huge.mean():.0f} % of its splats are larger than the whole avatar: these are no scales as "
            "3DGS writes them (logarithms in .ply). Export it again."
        )
    if huge.any():
        note(f"{int(huge.sum())} splats that are larger than the avatar left out")
    return splats.taken(~huge) if huge.any() else splats
