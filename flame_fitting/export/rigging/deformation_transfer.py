"""Deformations of a head carried over to another mesh that lies on it.

Sumner and Popovic, "Deformation transfer for triangle meshes", SIGGRAPH 2004, as the Poisson problem of Botsch, Sumner,
Pauly and Gross, "Deformation transfer for detail-preserving surface editing", VMV 2006. Matched vertices are also held
where the head carries them: the meshes lie on each other already.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from flame_fitting.maths.normals import area_vectors

_WITHIN = 0.003
"""Metres along the surface over which gradients count as much as places."""
_NEAR = 0.004
"""Metres from the head at which a place counts a third."""


def deformation_gradients(
    rest: Float[ndarray, "V 3"], deformed: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]
) -> Float[ndarray, "V 3 3"]:
    """Of each vertex: the mean of its triangles' affine maps from rest to deformed, their normals turned along."""

    def frame(vertices: ndarray) -> ndarray:
        a, b, c = (vertices[faces[:, k]] for k in range(3))
        normal = area_vectors(vertices, faces)
        length = np.sqrt(np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-16))
        return np.stack([b - a, c - a, normal / length], axis=2)

    before, after = frame(rest), frame(deformed)
    size = np.linalg.norm(area_vectors(rest, faces), axis=1)
    good = size > 1e-12
    maps = np.tile(np.eye(3), (len(faces), 1, 1))
    maps[good] = after[good] @ np.linalg.inv(before[good])
    # triangles that are all but a line tell nothing
    wild = np.abs(maps - np.eye(3)).max(axis=(1, 2)) > 5.0
    maps[wild] = np.eye(3)
    total, weight = np.zeros((len(rest), 3, 3)), np.zeros(len(rest))
    for k in range(3):
        np.add.at(total, faces[:, k], size[:, None, None] * maps)
        np.add.at(weight, faces[:, k], size)
    out = total / np.maximum(weight, 1e-30)[:, None, None]
    out[weight <= 0] = np.eye(3)
    return out


class DeformationTransfer:
    """The system of one avatar, factored once for all deformations."""

    def __init__(
        self,
        vertices: Float[ndarray, "W 3"],
        faces: Int[ndarray, "F 3"],
        matched: Bool[ndarray, " W"],
        still: Bool[ndarray, " W"],
        corners: Int[ndarray, "W 3"],
        barycentric: Float[ndarray, "W 3"],
        rest: Float[ndarray, "V 3"],
    ) -> None:
        """`corners` and `barycentric` are where on the head each vertex lies, `rest` the head at rest; `still` stay."""
        from scipy.sparse import coo_matrix, diags
        from scipy.sparse.linalg import splu

        self._vertices, self._faces, self._matched = vertices, faces, matched
        self._corners, self._barycentric, self._rest = corners, barycentric, rest
        self._on_head = np.einsum("nk,nkc->nc", barycentric, rest[corners])
        normal = area_vectors(vertices, faces)
        double = np.linalg.norm(normal, axis=1)
        safe = np.maximum(double, 1e-14)
        unit = normal / safe[:, None]
        a, b, c = (vertices[faces[:, k]] for k in range(3))
        # gradients of the hat functions, (F, 3 corners, 3)
        self._hats = np.stack([np.cross(unit, each) for each in (c - b, a - c, b - a)], axis=1) / safe[:, None, None]
        self._area = 0.5 * double
        blocks = self._area[:, None, None] * np.einsum("fic,fjc->fij", self._hats, self._hats)
        rows, columns = np.repeat(faces, 3, axis=1).ravel(), np.tile(faces, (1, 3)).ravel()
        count = len(vertices)
        stiffness = coo_matrix((blocks.ravel(), (rows, columns)), shape=(count, count)).tocsc()
        mass = np.bincount(faces.ravel(), np.repeat(self._area / 3, 3), count) + 1e-12
        off = np.linalg.norm(vertices - self._on_head, axis=1)
        held = np.where(matched, 1 / (1 + (off / _NEAR) ** 2 * 2), 0.0)
        self._held = mass * np.where(still, 1.0, held) / _WITHIN**2
        self._still = still
        self._solve = splu((stiffness + diags(self._held + 1e-9 * mass)).tocsc()).solve

    def displacements(
        self, deformed: Float[ndarray, "V 3"], gradients: Float[ndarray, "V 3 3"]
    ) -> Float[ndarray, "W 3"]:
        """Of the avatar's vertices, when its head goes from `rest` to `deformed`, of which these are the gradients."""
        there, maps = carried(self._corners, self._barycentric, self._rest, deformed, gradients, self._vertices)
        moved = np.where((self._matched & ~self._still)[:, None], there - self._vertices, 0.0)
        own = np.where(self._matched[:, None, None], maps - np.eye(3), 0.0)
        wanted = own[self._faces].mean(axis=1)
        known = self._matched[self._faces].all(axis=1)
        pull = np.where(known, self._area, 0.0)[:, None, None] * np.einsum("fic,fac->fia", self._hats, wanted)
        right = self._held[:, None] * moved
        for k in range(3):
            np.add.at(right, self._faces[:, k], pull[:, k])
        return np.asarray(self._solve(right))


def carried(
    corners: Int[ndarray, "W 3"],
    barycentric: Float[ndarray, "W 3"],
    rest: Float[ndarray, "V 3"],
    deformed: Float[ndarray, "V 3"],
    gradients: Float[ndarray, "V 3 3"],
    points: Float[ndarray, "W 3"],
) -> tuple[Float[ndarray, "W 3"], Float[ndarray, "W 3 3"]]:
    """Where points go that stand over places of the head, and the map of each: to first order in their distance.

    `gradients`: `deformation_gradients` of the head.
    """
    maps = np.einsum("nk,nkab->nab", barycentric, gradients[corners])
    before = np.einsum("nk,nkc->nc", barycentric, rest[corners])
    after = np.einsum("nk,nkc->nc", barycentric, deformed[corners])
    return after + np.einsum("nab,nb->na", maps, points - before), maps
