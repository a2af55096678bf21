"""A known true head, and how far a fitted one is from it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.files import read_npz, reason
from flame_fitting.head.model import HeadModel
from flame_fitting.maths.closest import TriangleTree
from flame_fitting.report.statistics import REGIONS, area_of_vertices, weighted_stats


@dataclass(eq=False)
class Truth:
    """A known true head with the head model's vertices; the model's teeth, which come last, may be missing."""

    vertices: Float[ndarray, "W 3"]
    """In the avatar's coordinates."""
    mm_per_unit: float
    """True millimetres in one unit of the avatar."""


def load_truth(path: Path | str, head: HeadModel) -> Truth | None:
    """A true head from an .npz file or a folder that holds one; None if its topology is another.

    Keys: `vertices` (V, 3) in the avatar's coordinates, and `mm_per_unit` or `head_from_world` (4, 4).
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.glob("*.npz"))
    for file in files:
        advice = "A ground truth needs vertices (V, 3) and mm_per_unit or head_from_world (4, 4)."
        data = read_npz(file, advice)
        name = next((key for key in ("vertices_world", "vertices") if key in data), None)
        if name is None:
            continue
        try:
            vertices = np.asarray(data[name], dtype=np.float64).reshape(-1, 3)
            if "mm_per_unit" in data:
                mm = float(data["mm_per_unit"])
            else:
                mm = 1000 * float(np.cbrt(np.linalg.det(data["head_from_world"][:3, :3])))
            if not np.isfinite(vertices).all() or not np.isfinite(mm) or mm <= 0:
                raise ValueError("vertices and their size must be finite numbers, the size above 0")
        except (ValueError, TypeError, KeyError, IndexError) as error:  # LinAlgError is a ValueError
            raise InputError(f"{file}: not a ground truth ({reason(error)}). {advice}") from error
        without_teeth = head.n_vertices - len(head.regions.get("teeth", ()))
        return Truth(vertices, mm) if len(vertices) in (head.n_vertices, without_teeth) else None
    raise InputError(
        f"{path}: no ground truth here. Give an .npz file with vertices (V, 3) and head_from_world (4, 4)."
    )


def truth_metrics(
    head: HeadModel, vertices: Float[ndarray, "V 3"], truth: Truth
) -> dict[str, dict[str, dict[str, float]]]:
    """`to_truth_mm` (vertex to vertex) and `to_truth_surface_mm` by region; both heads in the avatar's coordinates."""
    faces, count = head.faces.cpu().numpy(), len(truth.vertices)
    faces, vertices = faces[(faces < count).all(axis=1)], vertices[:count]
    between = np.linalg.norm(vertices - truth.vertices, axis=1) * truth.mm_per_unit
    to_surface = TriangleTree(truth.vertices, faces).closest(vertices).distance * truth.mm_per_unit
    areas = area_of_vertices(truth.vertices, faces)
    out: dict[str, dict[str, dict[str, float]]] = {}
    for name, tensor in head.regions.items():
        ids = tensor.cpu().numpy()
        ids = ids[ids < count]
        if name not in REGIONS or not len(ids):
            continue
        for key, values in (("to_truth_mm", between), ("to_truth_surface_mm", to_surface)):
            stats = weighted_stats(values[ids], areas[ids])
            if stats is not None:
                out.setdefault(name, {})[key] = stats
    return out
