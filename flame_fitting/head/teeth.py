"""Two rows of teeth for heads of FLAME's topology, placed from the contours of the lips.

Each row is a bent sheet of three strips: front, edge and back. The upper one follows the head, the lower one the jaw.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from flame_fitting.head.mesh_graph import MeshGraph
from flame_fitting.head.model import HeadData
from flame_fitting.head.mouth import mouth_rings

ROWS = (
    "upper_root",
    "lower_root",
    "upper_edge",
    "lower_edge",
    "upper_root_back",
    "upper_edge_back",
    "lower_root_back",
    "lower_edge_back",
)
"""Order in which the rows of vertices are appended; each row goes from the subject's left to the right."""

UPPER_STRIPS = ("upper_root", "upper_edge", "upper_edge_back", "upper_root_back")
LOWER_STRIPS = ("lower_root_back", "lower_edge_back", "lower_edge", "lower_root")
"""Rows of a jaw as unrolled, from the top down: neighbours share a strip that is wound outward."""

COLUMNS = 15
UV_LEFT, UV_RIGHT, UV_TOP, UV_BOTTOM = 0.62, 0.38, 0.9917, 0.9575
"""Place in texture space: a strip that FLAME's own layout leaves free."""

HEAD_JOINT, JAW_JOINT = 1, 2


def add_teeth(data: HeadData) -> HeadData:
    """The head with 120 vertices and 168 triangles more, after its own; unchanged where the mesh is not FLAME's.

    With U, L the contours of the lips, g their mean distance and M = (U + L) / 2 at its mean height and 1.5 g farther
    back: edges lie 0.1 g above and below M (the lower one 0.4 g farther back), roots 2 g beyond, backs g behind.
    """
    if "teeth" in data.regions and len(data.regions["teeth"]):
        return data
    first = len(data.v_template)
    template = np.asarray(data.v_template, dtype=np.float64)
    rings = mouth_rings(MeshGraph(data.faces, first), template)
    pairs = None if rings is None else rings.contour_pairs()
    if pairs is None or len(pairs[0]) != COLUMNS or len(data.parents) != 5:
        return data
    above, below = pairs

    rows = _rows(template[above], template[below])
    ids = {name: first + COLUMNS * i + np.arange(COLUMNS) for i, name in enumerate(ROWS)}
    count = COLUMNS * len(ROWS)
    faces = np.concatenate([_strips([ids[name] for name in names]) for names in (UPPER_STRIPS, LOWER_STRIPS)])
    of_lips = 0.5 * (data.shapedirs[above] + data.shapedirs[below])
    weights = np.zeros((count, data.weights.shape[1]), dtype=data.weights.dtype)
    upper, lower = (np.sort(np.concatenate([ids[name] for name in names])) for names in (UPPER_STRIPS, LOWER_STRIPS))
    weights[upper - first, HEAD_JOINT] = 1
    weights[lower - first, JAW_JOINT] = 1

    uv, uv_faces = data.uv, data.uv_faces
    if uv is not None and uv_faces is not None:
        uv_faces = np.concatenate([uv_faces, faces - first + len(uv)])
        uv = np.concatenate([uv, _uv().astype(uv.dtype)])

    column = np.tile(np.arange(COLUMNS), len(ROWS))
    every, middle = first + np.arange(count), COLUMNS // 2
    regions = data.regions | {"teeth": every, "teeth_upper": upper, "teeth_lower": lower}
    for half, part in (("left_half", column <= middle), ("right_half", column >= middle)):
        if half in regions:
            regions[half] = np.concatenate([regions[half], every[part]])
    return replace(
        data,
        v_template=np.concatenate([data.v_template, np.concatenate([rows[n] for n in ROWS]).astype(template.dtype)]),
        faces=np.concatenate([data.faces, faces.astype(data.faces.dtype)]),
        shapedirs=np.concatenate([data.shapedirs, np.tile(of_lips, (len(ROWS), 1, 1))]),
        exprdirs=_more_rows(data.exprdirs, count),
        posedirs=_more_rows(data.posedirs, count),
        J_regressor=np.pad(data.J_regressor, ((0, 0), (0, count))),
        weights=np.concatenate([data.weights, weights]),
        uv=uv,
        uv_faces=uv_faces,
        regions=regions,
    )


def _rows(upper_lip: ndarray, lower_lip: ndarray) -> dict[str, ndarray]:
    gap = float(np.linalg.norm(upper_lip - lower_lip, axis=1).mean())
    up, back = np.array([0.0, gap, 0.0]), np.array([0.0, 0.0, -gap])
    middle = 0.5 * (upper_lip + lower_lip)
    middle[:, 1] = middle[:, 1].mean()
    middle += 1.5 * back
    rows = {"upper_edge": middle + 0.1 * up, "lower_edge": middle - 0.1 * up + 0.4 * back}
    rows["upper_root"] = rows["upper_edge"] + 2 * up
    rows["lower_root"] = rows["lower_edge"] - 2 * up
    return rows | {f"{name}_back": row + back for name, row in rows.items()}


def _strips(rows: list[ndarray]) -> Int[ndarray, "F 3"]:
    """Triangles between successive rows that run from left to right, wound toward a viewer who sees them so."""
    out = []
    for above, below in pairwise(rows):
        out.append(np.stack([above[:-1], above[1:], below[1:]], axis=1))
        out.append(np.stack([above[:-1], below[1:], below[:-1]], axis=1))
    return np.concatenate(out)


def _uv() -> ndarray:
    """Both jaws unrolled, one below the other, so that no two triangles share a texel."""
    levels = dict(zip(UPPER_STRIPS + LOWER_STRIPS, np.linspace(UV_TOP, UV_BOTTOM, len(ROWS)), strict=True))
    across = np.linspace(UV_LEFT, UV_RIGHT, COLUMNS)
    return np.concatenate([np.stack([across, np.full(COLUMNS, levels[name])], axis=1) for name in ROWS])


def _more_rows(array: ndarray, count: int) -> ndarray:
    return np.concatenate([array, np.zeros((count, *array.shape[1:]), dtype=array.dtype)])
