"""Triangles that offsets turned inside out or folded onto a neighbour: one measure for fit and report."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flame_fitting.fit.parameters import FitParameters
from flame_fitting.head.model import HeadModel
from flame_fitting.render.shading import face_normals

FOLD_COSINE = -0.5
"""Cosine between the normals of neighbours below which they are folded onto each other."""
FOLD_CLOSING = np.radians(10.0)
"""Angle by which they must have closed for that: head models come with lips and lids that are folded nearly so."""


def adjacent_faces(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "P 2"]:
    """Pairs of triangles that share an edge."""
    corners = faces.cpu().numpy()
    edges = np.sort(np.stack([corners[:, [1, 2]], corners[:, [2, 0]], corners[:, [0, 1]]], axis=1), axis=-1)
    edges, owner = edges.reshape(-1, 2), np.repeat(np.arange(len(corners)), 3)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    same = (edges[order[1:]] == edges[order[:-1]]).all(axis=1)
    pairs = np.stack([owner[order[:-1]][same], owner[order[1:]][same]], axis=1)
    return torch.as_tensor(pairs, device=faces.device)


def folded_faces(
    vertices: Float[Tensor, "T V 3"],
    before: Float[Tensor, "T V 3"],
    faces: Int[Tensor, "F 3"],
    pairs: Int[Tensor, "P 2"],
) -> Bool[Tensor, "T F"]:
    """Triangles that turned by more than 90 degrees between `before` and `vertices`, or folded onto a neighbour.

    Neighbours are folded past `FOLD_COSINE`, where they closed by `FOLD_CLOSING` or more and were not folded before.
    `pairs` are `adjacent_faces`. Of two triangles that fold together, the one that turned farther counts.
    """
    now, then = (torch.nn.functional.normalize(face_normals(v, faces), dim=-1, eps=1e-30) for v in (vertices, before))
    turn = (now * then).sum(-1)
    out = turn < 0
    first, second = pairs[:, 0], pairs[:, 1]
    cosine_now, cosine_then = ((n[:, first] * n[:, second]).sum(-1) for n in (now, then))
    closed = cosine_now.clamp(-1, 1).acos() - cosine_then.clamp(-1, 1).acos() > FOLD_CLOSING
    new = (cosine_now < FOLD_COSINE) & (cosine_then > FOLD_COSINE) & closed
    culprit = torch.where(turn[:, first] < turn[:, second], first, second)
    return out | torch.zeros_like(out, dtype=torch.int32).scatter_add(1, culprit, new.int()).bool()


def folded_at(
    head: HeadModel, parameters: FitParameters, pairs: Int[Tensor, "P 2"] | None = None
) -> Bool[Tensor, "T F"]:
    """Triangles that all offsets together turned or folded, by timestep; `pairs` are `adjacent_faces`."""
    pairs = adjacent_faces(head.faces) if pairs is None else pairs
    bare = replace(parameters.without_dynamic_offset(), static_offset=torch.zeros_like(parameters.static_offset))
    return folded_faces(parameters.vertices(head), bare.vertices(head), head.faces, pairs)


def folded_by_dynamic(
    head: HeadModel, parameters: FitParameters, pairs: Int[Tensor, "P 2"] | None = None
) -> Bool[Tensor, "T F"]:
    """Those of `folded_at` that the static offsets alone do not turn or fold at that timestep."""
    pairs = adjacent_faces(head.faces) if pairs is None else pairs
    static = parameters.without_dynamic_offset()
    bare = replace(static, static_offset=torch.zeros_like(static.static_offset)).vertices(head)
    by_all, by_static = (folded_faces(some.vertices(head), bare, head.faces, pairs) for some in (parameters, static))
    return by_all & ~by_static


def folded_triangles(
    head: HeadModel, parameters: FitParameters, pairs: Int[Tensor, "P 2"] | None = None
) -> Bool[Tensor, " F"]:
    """Triangles that the static offsets turned or folded at any timestep; `pairs` are `adjacent_faces`."""
    folded = torch.zeros(len(head.faces), dtype=torch.bool, device=head.faces.device)
    if not bool(parameters.static_offset.any()):
        return folded
    pairs = adjacent_faces(head.faces) if pairs is None else pairs
    for some in parameters.without_dynamic_offset().batches():
        folded |= folded_at(head, some, pairs).any(0)
    return folded
