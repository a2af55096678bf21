"""When two rasterizers agree: the same triangle on 99.9 % of pixels, there values to 1e-4; gradients as vectors."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from tests.render.raster_scenes import ANTIALIASED, Results

SAME_TRIANGLE = 0.999
VALUE = 1e-4
COSINE = 0.999
RELATIVE_L2 = 0.01


def disagreements(
    expected: Results, actual: Results, pixels: NDArray | None = None, slivers: bool = False
) -> list[str]:
    """What is beyond the bars, in words.

    Args:
        pixels: where the pictures and picture gradients of `expected`, then (N, C), were kept: flat indices over
            (B, H, W). None where they are whole.
        slivers: one of the two computes in float32, as nvdiffrast does. In triangles thinner than a quarter of a pixel
            barycentric coordinates are then measured by their change from pixel to pixel (`rast_db`), and that change
            by the largest of its four numbers: float32 has them to some 1e-5 of that. One in 30,000 pixels of a
            close-up of the head needs it. In slivers that are seen edge on the change itself may be off by what
            `rounding` says: one in 100,000 pixels of the head at 384 px needs it.
    """
    found: list[str] = []
    same: dict[str, NDArray] = {}
    for group, triangles in expected.triangles.items():
        same[group] = triangles == actual.triangles[group]
        if same[group].mean() < SAME_TRIANGLE:
            found.append(f"{group}: the same triangle on {same[group].mean():.5f} of pixels")
        if not (triangles > 0).any():
            found.append(f"{group}: nothing is drawn")
    for name, want in expected.pictures.items():
        got, where = _at(actual.pictures[name], pixels), _where(name, same, pixels)
        error = np.abs(got - want) / _scale(name, expected, slivers)
        error = error if where is None else error[where]
        if not error.max() <= VALUE:
            found.append(f"{name}: off by {error.max():.2e} at worst, {np.mean(error > VALUE):.1e} of the values")
    for name, want in expected.picture_gradients.items():
        got, where = _at(actual.picture_gradients[name], pixels), _where(name, same, pixels)
        if where is not None:
            want, got = want[where], got[where]
        found += _as_vectors(name, want, got)
    for name, want in expected.gradients.items():
        found += _as_vectors(name, want, actual.gradients[name])
    return found


def table(expected: Results, actual: Results, pixels: NDArray | None = None) -> list[str]:
    """The measures behind `disagreements`, a line each."""
    lines: list[str] = []
    same = {group: triangles == actual.triangles[group] for group, triangles in expected.triangles.items()}
    lines += [f"{group + ' triangles':<34} equal on {100 * equal.mean():.4f} %" for group, equal in same.items()]
    for name, want in expected.pictures.items():
        got, where = _at(actual.pictures[name], pixels), _where(name, same, pixels)
        error = np.abs(got - want) / _scale(name, expected, slivers=False)
        lines.append(f"{name:<34} max error {(error if where is None else error[where]).max():.1e}")
    gradients = [(name, want, actual.gradients[name]) for name, want in expected.gradients.items()]
    for name, want in expected.picture_gradients.items():
        got, where = _at(actual.picture_gradients[name], pixels), _where(name, same, pixels)
        gradients.append((name, want, got) if where is None else (name, want[where], got[where]))
    for name, want, got in gradients:
        cosine, relative = _measures(want, got)
        lines.append(f"{name:<34} cosine {cosine:.6f}  relative L2 {relative:.1e}")
    return lines


def _scale(name: str, expected: Results, slivers: bool) -> NDArray:
    """What an error is measured against: the entry where it is large, the largest entry where all are small, else 1."""
    want = np.abs(expected.pictures[name])
    scale = np.maximum(min(1.0, float(want.max())), want)
    group, quantity = name.split("/")
    steep = np.abs(expected.pictures.get(f"{group}/rast_db", np.zeros(1))).max(axis=-1, keepdims=True)
    if slivers and quantity == "rast_db":
        scale = np.maximum(scale, steep)
    if slivers and quantity in ("rast_db", "uv_da"):
        scale = scale * np.maximum(1.0, rounding(steep, want.shape[1:3]) / VALUE)
    if slivers and quantity == "rast":
        scale = np.maximum(scale, np.where(np.arange(want.shape[-1]) < 2, steep / 4, 0.0))
    return scale


def rounding(steep: NDArray, size: tuple[int, ...]) -> NDArray:
    """Share of the change of barycentric coordinates from pixel to pixel that may be float32's rounding.

    Corners relative to a pixel are differences of numbers up to half the picture, hence off by 2^-24 of that. The area
    between them, which everything is divided by, is off by as much of a pixel times its length. A sliver that is 1 /
    `steep` px wide (1 / px) loses that share of its area: 9e-3 of one that is 1/757 px wide at 384 px.
    """
    return 2.0**-24 * max(size) / 2 * steep


def _at(picture: NDArray, pixels: NDArray | None) -> NDArray:
    return picture if pixels is None else picture.reshape(-1, picture.shape[-1])[pixels]


def _where(name: str, same: dict[str, NDArray], pixels: NDArray | None) -> NDArray | None:
    group, quantity = name.split("/")
    if group not in same:
        return None
    equal = same[group]
    if quantity in ANTIALIASED:
        equal = binary_erosion(equal, np.ones((1, 3, 3), bool), border_value=1)
    return equal if pixels is None else equal.reshape(-1)[pixels]


def _as_vectors(name: str, want: NDArray, got: NDArray) -> list[str]:
    cosine, relative = _measures(want, got)
    if cosine >= COSINE and relative <= RELATIVE_L2:
        return []
    return [f"{name}: cosine {cosine:.6f}, relative L2 {relative:.2e}"]


def _measures(want: NDArray, got: NDArray) -> tuple[float, float]:
    a, b = want.astype(np.float64).ravel(), got.astype(np.float64).ravel()
    length_a, length_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if length_a == 0.0 and length_b == 0.0:
        return 1.0, 0.0
    if length_a == 0.0 or length_b == 0.0:
        return 0.0, 1.0
    return float(a @ b) / (length_a * length_b), float(np.linalg.norm(a - b)) / length_a
