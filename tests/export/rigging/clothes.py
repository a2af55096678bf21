"""An avatar that goes on below the neck: shoulders that are one surface with the skin, a shirt with a collar, a
necklace."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh

from flame_fitting.fit.result import FitResult
from flame_fitting.head.mesh_graph import MeshGraph
from flame_fitting.head.model import HeadModel
from tests.export.rigging.avatars import fit_of

_AROUND = 64
_DOWN = 0.35
"""Metres that shoulders and shirt go on below the head model's end."""


@dataclass
class Dressed:
    """Names of the parts are skin, shirt and necklace."""

    fit: FitResult
    path: Path
    end: float
    """Lowest point of the head model, metres of head space."""


def dressed_avatar(head: HeadModel, folder: Path, off: float = 0.005) -> Dressed:
    """`off`: metres that the collar stands off the neck."""
    fit = fit_of(head)
    vertices, faces = fit.vertices_head(head)[0], head.faces.numpy()
    hard = (head.weights.numpy()[:, 3:] > 0.5).any(axis=1)
    skin = faces[~hard[faces].any(axis=1)]
    loops = MeshGraph(skin, len(vertices)).boundary_loops
    rim = min(loops, key=lambda loop: vertices[loop, 1].mean())
    scene = trimesh.Scene()
    middle = np.append(vertices[rim].mean(axis=0)[[0, 2]], 0.0)
    # the rim, and below it rings that go out to shoulders and straight down
    steps = np.linspace(0, 1, 24)[1:]
    rings = [vertices[rim], *(_out(vertices[rim], middle, step) for step in steps)]
    body = np.concatenate([vertices, *rings[1:]])
    numbers = [rim, *(len(vertices) + len(rim) * k + np.arange(len(rim)) for k in range(len(steps)))]
    strips = [_strip(a, b) for a, b in itertools.pairwise(numbers)]
    # a boundary runs with its triangles, so what is sewn to it runs against it
    _add(scene, fit, "skin", body, np.concatenate([skin, *(strip[:, ::-1] for strip in strips)]))
    neck = vertices[np.unique(skin)]
    end = float(vertices[rim, 1].min())
    collar = [_ring(neck, middle, y, off) for y in np.arange(end + 0.07, end + 0.01, -0.006)]
    shirt = [*collar, *(_out(collar[-1], middle, step) for step in steps)]
    grid = np.arange(len(shirt) * _AROUND).reshape(len(shirt), _AROUND)
    strips = [_strip(a, b) for a, b in itertools.pairwise(grid)]
    _add(scene, fit, "shirt", np.concatenate(shirt), np.concatenate(strips))
    at = _ring(neck, middle, end + 0.08, 0.003)
    near = at - [middle[0], 0, middle[1]]
    outward = near * [1, 0, 1] / np.linalg.norm(near[:, [0, 2]], axis=1, keepdims=True)
    tube = [at + 0.002 * (np.cos(t) * outward + np.sin(t) * np.array([0, 1, 0])) for t in np.arange(8) * np.pi / 4]
    grid = np.arange(8 * _AROUND).reshape(8, _AROUND)
    strips = [_strip(grid[k], grid[k - 1]) for k in range(8)]
    _add(scene, fit, "necklace", np.concatenate(tube), np.concatenate(strips))
    path = folder / "dressed.glb"
    scene.export(path)
    return Dressed(fit, path, end)


def _out(ring: np.ndarray, middle: np.ndarray, step: float) -> np.ndarray:
    out = ring.copy()
    wider = 1 + 1.6 * np.sin(0.5 * np.pi * min(2 * step, 1))
    out[:, [0, 2]] = middle[:2] + (ring[:, [0, 2]] - middle[:2]) * wider
    out[:, 1] -= _DOWN * step
    return out


def _ring(neck: np.ndarray, middle: np.ndarray, y: float, off: float) -> np.ndarray:
    """Points around the neck at a height, off its skin."""
    near = neck[np.abs(neck[:, 1] - y) < 0.01]
    flat = near[:, [0, 2]] - middle[:2]
    angle, radius = np.arctan2(flat[:, 1], flat[:, 0]), np.linalg.norm(flat, axis=1)
    around = np.linspace(-np.pi, np.pi, _AROUND, endpoint=False)
    apart = np.abs((angle[None] - around[:, None] + np.pi) % (2 * np.pi) - np.pi)
    reach = np.where(apart < 0.2, radius, 0).max(axis=1) + off
    return np.stack([middle[0] + reach * np.cos(around), np.full(_AROUND, y), middle[1] + reach * np.sin(around)], 1)


def _strip(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Triangles between two rings."""
    a, b, c, d = upper, np.roll(upper, -1), lower, np.roll(lower, -1)
    return np.concatenate([np.stack([a, b, c], axis=1), np.stack([b, d, c], axis=1)])


def _add(scene: trimesh.Scene, fit: FitResult, name: str, in_head: np.ndarray, faces: np.ndarray) -> None:
    used = np.unique(faces)
    matrix = np.linalg.inv(fit.head_from_world)
    world = in_head[used] @ matrix[:3, :3].T + matrix[:3, 3]
    mesh = trimesh.Trimesh(world, np.searchsorted(used, faces), process=False)
    scene.add_geometry(mesh, node_name=name, geom_name=name)
