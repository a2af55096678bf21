"""Floaters: splats that belong to nothing or that nobody sees."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from flame_fitting.avatar.splat_kernels import LEAST_ALPHA
from flame_fitting.avatar.splat_scene import build_scene, draw_splats
from flame_fitting.avatar.splats import Splats, middle
from flame_fitting.capture.camera import intrinsics_from_fov, look_at

_NEIGHBOURS = 8
_LINK = 3.0
"""Splats are linked where their centres are nearer than so many of both's standard deviations together."""
_SMALL = 0.02
"""Groups of linked splats with less than this share of the largest one's surface are floaters."""
_HIDDEN = 1.0 / 255.0
"""Largest weight in any pixel of a splat that nobody sees."""
_SIZE, _DISTANCE = 256, 6.0


def without_floaters(splats: Splats, note: Callable[[str], None]) -> Splats:
    """Without what is too faint to be drawn, small groups that are linked to nothing, and splats hidden from all sides.

    Pictures from outside stay as they are but for the floaters. A sound avatar loses next to nothing.
    """
    faint = splats.opacities < LEAST_ALPHA
    kept = splats.taken(~faint) if faint.any() else splats
    alone = ~_in_a_large_group(kept)
    kept = kept.taken(~alone) if alone.any() else kept
    hidden = seen_weights(kept) < _HIDDEN
    kept = kept.taken(~hidden) if hidden.any() else kept
    said = [f"{int(rows.sum())} {what}" for rows, what in ((alone, "that float"), (hidden, "hidden")) if rows.any()]
    said += [f"{int(faint.sum())} too faint to be seen"] if faint.any() else []
    if said:
        note(f"splats left out: {', '.join(said)}; {len(kept)} are left")
    return kept


def _in_a_large_group(splats: Splats) -> Bool[np.ndarray, " N"]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    count = len(splats)
    if count <= _NEIGHBOURS:
        return np.ones(count, dtype=bool)
    distance, index = cKDTree(splats.means).query(splats.means, k=_NEIGHBOURS + 1)
    # a large floater reaches no farther than the avatar's own splats do
    size = np.minimum(splats.scales.max(axis=1), 4 * np.median(splats.scales.max(axis=1)))
    typical = np.median(distance[:, -1])
    near = distance < np.maximum(_LINK * (size[:, None] + size[index]), typical)
    rows = np.repeat(np.arange(count), near.sum(axis=1))
    links = coo_array((np.ones(len(rows), dtype=np.int8), (rows, index[near])), shape=(count, count))
    groups, label = connected_components(links, directed=False)
    surface = splats.opacities * np.prod(np.sort(splats.scales.astype(np.float64), axis=1)[:, 1:], axis=1)
    total = np.bincount(label, weights=surface, minlength=groups)
    return (total >= _SMALL * total.max())[label]


def seen_weights(splats: Splats) -> Float[np.ndarray, " N"]:
    """Largest weight of each splat in any pixel of pictures from 26 sides."""
    center, radius = middle(splats.means, 0.99)
    directions = np.array([d for d in np.ndindex(3, 3, 3) if d != (1, 1, 1)], dtype=np.float64) - 1.0
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    ups = np.where(np.abs(directions[:, 1:2]) < 0.9, [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]])
    views = look_at(center + _DISTANCE * radius * directions, center, ups)
    fov = 2.0 * np.degrees(np.arcsin(1.1 / _DISTANCE))
    K = np.broadcast_to(intrinsics_from_fov(float(fov), _SIZE, _SIZE), (len(views), 3, 3))
    weights = np.zeros(len(splats))
    draw_splats(build_scene(splats, 0), K, views, _SIZE, _SIZE, outputs=(), weights=weights)
    return weights
