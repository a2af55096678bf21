"""Skin weights of an avatar: those of its head where the match is trusted, inpainted along its surface elsewhere.

Abdrashitov, Raichstat, Monsen and Hill, "Robust skin weights transfer via weight inpainting", SIGGRAPH Asia 2023
Technical Communications.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

_HELD = 1e-8


def inpainted(
    vertices: Float[ndarray, "W 3"],
    faces: Int[ndarray, "F 3"] | None,
    known: Bool[ndarray, " W"],
    values: Float[ndarray, "W J"],
) -> Float[ndarray, "W J"]:
    """Weights of all vertices from those of the known ones, each row at least 0 and of sum 1.

    The minimum of trace(X^T (L M^-1 L) X) with the known rows held; without `faces` on a cloud of points. Components
    without a known row follow the first joint.
    """
    import robust_laplacian
    from scipy.sparse import diags
    from scipy.sparse.csgraph import connected_components
    from scipy.sparse.linalg import splu

    out = np.zeros_like(values)
    out[:, 0] = 1.0
    out[known] = values[known]
    points = np.ascontiguousarray(vertices)
    if faces is None:
        laplacian, mass = robust_laplacian.point_cloud_laplacian(points)
    else:
        laplacian, mass = robust_laplacian.mesh_laplacian(points, np.ascontiguousarray(faces))
    scale = mass.diagonal().mean()
    area = np.maximum(mass.diagonal() / scale, 1e-4)
    energy = (laplacian @ diags(1 / area) @ laplacian).tocsr()
    label = connected_components(laplacian, directed=False)[1]
    reached = np.isin(label, label[known])
    free = np.flatnonzero(reached & ~known)
    if len(free):
        held = np.flatnonzero(reached & known)
        system = (energy[free][:, free] + _HELD * diags(area[free])).tocsc()
        out[free] = splu(system).solve(-(energy[free][:, held] @ values[held]))
    out = np.clip(out, 0.0, None)
    total = out.sum(axis=1, keepdims=True)
    out[total[:, 0] <= 0, 0] = 1.0
    return out / out.sum(axis=1, keepdims=True)
