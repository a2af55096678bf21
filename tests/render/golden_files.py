"""Files with what nvdiffrast made of the scenes: results of one scene, small enough for the repository.

Triangle indices and gradients of vertices and texels are whole; pictures are kept at sampled pixels, half of them at
the outlines. Gradients are float16 of their largest entry, which is far finer than the bar for them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion

from flame_fitting.files import atomic_write
from tests.render.raster_scenes import Results

FOLDER = Path(__file__).parent / "golden"
HOW_TO_MAKE = "make it on a machine with an NVIDIA GPU and nvdiffrast: python scripts/make_golden_raster.py"
N_PIXELS = 800


@dataclass
class Golden:
    """One file."""

    results: Results
    pixels: NDArray | None
    """Where pictures were kept, flat over (B, H, W); None where they are whole."""
    metadata: dict[str, Any]


def sample_pixels(results: Results, seed: int = 0) -> NDArray | None:
    """Flat indices of pixels on and next to what is drawn; None for results without triangles."""
    if not results.triangles:
        return None
    rng = np.random.default_rng(seed)
    drawn = np.any([triangles > 0 for triangles in results.triangles.values()], axis=0)
    block = np.ones((1, 3, 3), bool)
    near = binary_dilation(drawn, block)
    outline = np.flatnonzero(near & ~binary_erosion(drawn, block))
    inside = np.flatnonzero(binary_erosion(drawn, block))
    parts = [rng.choice(part, min(N_PIXELS // 2, len(part)), replace=False) for part in (outline, inside)]
    return np.sort(np.concatenate(parts)).astype(np.int32)


def write_golden(path: Path, results: Results, metadata: dict[str, Any]) -> None:
    pixels = sample_pixels(results)
    arrays: dict[str, NDArray] = {"metadata": np.array(json.dumps(metadata, indent=1))}
    if pixels is not None:
        arrays["pixels"] = pixels
    for name, triangles in results.triangles.items():
        assert triangles.max() < 2**16
        arrays[f"triangles:{name}"] = triangles.astype(np.uint16)
    for name, picture in results.pictures.items():
        arrays[f"picture:{name}"] = _kept(picture, pixels)
    for kind, gradients in (("picture_gradient", results.picture_gradients), ("gradient", results.gradients)):
        for name, gradient in gradients.items():
            kept = _kept(gradient, pixels) if kind == "picture_gradient" else gradient
            scale = np.float32(max(float(np.abs(kept).max()), 1e-30))
            arrays[f"{kind}:{name}"] = (kept / scale).astype(np.float16)
            arrays[f"scale:{kind}:{name}"] = np.array(scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_golden(path: Path) -> Golden:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; {HOW_TO_MAKE}")
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    results = Results()
    for key, array in arrays.items():
        kind, _, name = key.partition(":")
        if kind == "triangles":
            results.triangles[name] = array.astype(np.float32)
        elif kind == "picture":
            results.pictures[name] = array
        elif kind == "picture_gradient":
            results.picture_gradients[name] = array.astype(np.float32) * arrays[f"scale:{key}"]
        elif kind == "gradient":
            results.gradients[name] = array.astype(np.float32) * arrays[f"scale:{key}"]
    return Golden(results, arrays.get("pixels"), json.loads(str(arrays["metadata"])))


def _kept(picture: NDArray, pixels: NDArray | None) -> NDArray:
    return picture if pixels is None else picture.reshape(-1, picture.shape[-1])[pixels]
