"""Small avatars made of the open head, so that what their rig has to do is known to the vertex."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from tests.synthetic import known_fit, similarity

_COLORS = {"skin": (200, 150, 120), "eye": (235, 240, 255), "teeth": (250, 250, 220), "glasses": (30, 30, 60)}


@dataclass
class Known:
    """An avatar whose skin and eyeballs are a fitted head's own vertices."""

    fit: FitResult
    head: HeadModel
    path: Path
    vertex: dict[str, np.ndarray]
    """By name of the part: the head model's vertices."""

    def posed(self, **changes: np.ndarray) -> np.ndarray:
        """All vertices of the head model, in the avatar's coordinates, with parameters replaced."""
        parameters = self.fit.parameters | {k: np.atleast_2d(v).astype(np.float64) for k, v in changes.items()}
        return replace(self.fit, parameters=parameters).vertices_world(self.head)[0]

    def to_mm(self, lengths: np.ndarray) -> np.ndarray:
        """Lengths of the avatar in millimetres."""
        return lengths * self.fit.mm_per_unit


def fit_of(head: HeadModel) -> FitResult:
    """A person with lips a little apart, that looks aside."""
    fit = known_fit(head, similarity())
    rng = np.random.default_rng(2)
    own = {
        "shape": 0.5 * rng.normal(size=head.n_shape),
        "expr": np.zeros((1, head.n_expr)),
        "jaw_pose": np.array([[0.03, 0.0, 0.0]]),
        "neck_pose": np.array([[0.02, 0.05, 0.01]]),
        "eyes_pose": np.array([[0.0, 0.05, 0.0, 0.0, 0.05, 0.0]]),
    }
    return replace(fit, parameters=fit.parameters | own)


def known_avatar(head: HeadModel, folder: Path, suffix: str = "glb") -> Known:
    """Skin, two eyeballs, two rows of teeth, glasses."""
    fit = fit_of(head)
    world = fit.vertices_world(head)[0]
    weights, faces = head.weights.numpy(), head.faces.numpy()
    owner = np.where(weights[:, 3] > 0.5, 1, np.where(weights[:, 4] > 0.5, 2, 0))
    scene, vertex = trimesh.Scene(), {}
    for number, name in enumerate(("skin", "eye_left", "eye_right")):
        own = np.flatnonzero(owner == number)
        part = faces[(owner[faces] == number).all(axis=1)]
        vertex[name] = own
        _add(scene, name, world[own], np.searchsorted(own, part))
    for name, (corner, size) in boxes(fit, head).items():
        box = trimesh.creation.box(size).subdivide()
        _add(scene, name, to_world(fit, head, box.vertices + corner), box.faces)
    path = folder / f"avatar.{suffix}"
    scene.export(path)
    return Known(fit, head, path, vertex)


def boxes(fit: FitResult, head: HeadModel) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Middles and sizes (metres, of the skull's axes) of teeth and glasses."""
    own = in_skull(fit, head, fit.vertices_world(head)[0])
    lips = own[head.region_mask("lips").numpy()].mean(axis=0)
    eyes = own[head.region_mask("eyeballs").numpy()]
    behind, wide = np.array([0.0, 0.0, -0.018]), np.array([0.03, 0.006, 0.008])
    glasses = np.array([eyes[:, 0].mean(), eyes[:, 1].mean(), eyes[:, 2].max() + 0.03])
    return {
        "teeth_upper": (lips + behind + [0, 0.006, 0], wide),
        "teeth_lower": (lips + behind - [0, 0.006, 0], wide),
        "glasses": (glasses, np.array([0.12, 0.03, 0.004])),
    }


def skull(fit: FitResult) -> np.ndarray:
    """Axes of the skull in head space."""
    return Rotation.from_rotvec(fit.parameters["neck_pose"][0]).as_matrix()


def in_skull(fit: FitResult, head: HeadModel, world: np.ndarray) -> np.ndarray:
    """From the avatar's coordinates."""
    return (world @ fit.head_from_world[:3, :3].T + fit.head_from_world[:3, 3]) @ skull(fit)


def to_world(fit: FitResult, head: HeadModel, points: np.ndarray) -> np.ndarray:
    """Back to the avatar's coordinates."""
    matrix = np.linalg.inv(fit.head_from_world)
    return (points @ skull(fit).T) @ matrix[:3, :3].T + matrix[:3, 3]


def _add(scene: trimesh.Scene, name: str, vertices: np.ndarray, faces: np.ndarray) -> None:
    material = trimesh.visual.material.PBRMaterial(name=name, baseColorFactor=[*_COLORS[name.split("_")[0]], 255])
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.visual = trimesh.visual.TextureVisuals(uv=np.zeros((len(vertices), 2)), material=material)
    scene.add_geometry(mesh, node_name=name, geom_name=name)
