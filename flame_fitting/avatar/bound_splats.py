"""GaussianAvatars' splats: offsets in the frames of FLAME's faces, posed by the FLAME parameters beside the file.

Qian et al., "GaussianAvatars: Photorealistic Head Avatars with Rigged 3D Gaussians", CVPR 2024, section 3.1: a face's
frame has its origin in the mean of the corners; its axes are an edge, the normal, and the direction across both; its
scale is the mean of the edge and of the height above it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from flame_fitting.avatar.splats import Splats, made_splats
from flame_fitting.errors import InputError
from flame_fitting.files import read_npz
from flame_fitting.head.flame_files import FLAME_WITH_TEETH
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.head.teeth import COLUMNS, ROWS

BINDING = "binding_0"
"""GaussianAvatars' property of a splat: the number of its face."""
PARAMETERS = "flame_param.npz"
_ADVICE = f"GaussianAvatars writes {PARAMETERS} beside point_cloud.ply: copy both."
_POSES = {"rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "translation": 3}
_GET_FLAME = "GaussianAvatars binds splats to FLAME 2023 with teeth: give it with --head flame2023 (and --flame-dir)."

_TEETH = (
    ("upper_root", "upper_edge", "right", False),
    ("upper_root_back", "upper_edge_back", "right", True),
    ("upper_edge_back", "upper_edge", "left", True),
    ("lower_edge", "lower_root", "left", False),
    ("lower_root_back", "lower_edge_back", "right", False),
    ("lower_edge_back", "lower_edge", "left", False),
)
"""Its strips of teeth in order: rows of vertices above and below, to which side the diagonals of the first half lean,
and whether corners go the other way round."""


@dataclass(frozen=True, eq=False)
class Bound:
    """Splats as GaussianAvatars' file has them: all lengths are in units of their face's scale, in its frame."""

    means: Float[np.ndarray, "N 3"]
    scales: Float[np.ndarray, "N 3"]
    quats: Float[np.ndarray, "N 4"]
    """w, x, y, z, of any length."""
    opacities: Float[np.ndarray, " N"]
    sh: Float[np.ndarray, "N K 3"]
    face: Float[np.ndarray, " N"]
    """Numbers of faces, as the file has them."""


def posed_splats(
    bound: Bound,
    path: Path,
    note: Callable[[str], None],
    head: Callable[[], HeadModel] | None = None,
    timestep: int = 0,
) -> Splats:
    """The splats in the world of the FLAME parameters beside `path`, at one of their timesteps. Raises InputError."""
    model = load_head() if head is None else head()
    if not np.isfinite(bound.face).all() or (bound.face < 0).any() or (bound.face != np.round(bound.face)).any():
        raise InputError(f"{path}: {BINDING} holds values that are no numbers of faces. Export it again.")
    faces = binding_faces(model)
    face, most = bound.face.astype(np.int64), len(faces)
    if face.max(initial=0) >= most:
        raise InputError(
            f"{path}: its splats are bound to face {face.max()}, and the head model '{model.name}' has {most}. "
            + _GET_FLAME
        )
    beside = path.parent / PARAMETERS
    if not beside.is_file():
        raise InputError(
            f"{path}: its positions are offsets in the frames of FLAME's faces ({BINDING}), and {PARAMETERS}, which "
            f"says how the head is posed, is not beside it. {_ADVICE}"
        )
    vertices = _posed_head(model, beside, timestep)
    note(f"splats bound to the faces of '{model.name}', posed by timestep {timestep} of {PARAMETERS}")
    center, axes, scale = face_frames(vertices, faces)
    means = center[face] + scale[face, None] * np.einsum("nij,nj->ni", axes[face], bound.means)
    with np.errstate(over="ignore", invalid="ignore"):
        scales = scale[face, None] * bound.scales
        quats = product(quats_of(axes)[face], bound.quats)
    return made_splats(path, note, means, scales, quats, bound.opacities, bound.sh)


def binding_faces(model: HeadModel) -> Int[np.ndarray, "F 3"]:
    """Triangles by the numbers that GaussianAvatars binds to: the model's, but FLAME's teeth in an order of its own."""
    faces = np.array(model.faces.cpu().numpy(), dtype=np.int64)
    first = len(faces) - len(_TEETH) * 2 * (COLUMNS - 1)
    if (model.n_vertices, len(faces)) != FLAME_WITH_TEETH:
        return faces
    base = model.n_vertices - len(ROWS) * COLUMNS
    start = {name: base + COLUMNS * number for number, name in enumerate(ROWS)}
    column, rows = np.arange(COLUMNS - 1), []
    for above, below, leaning, turned in _TEETH:
        a, b = start[above] + column, start[below] + column
        quads = {
            "right": [[a, b + 1, b], [a, a + 1, b + 1]],
            "left": [[a, a + 1, b], [a + 1, b + 1, b]],
        }
        # diagonals are mirrored in the middle
        both_ways = np.array([quads["right"], quads["left"]][:: 1 if leaning == "right" else -1])
        mine, other = np.moveaxis(both_ways, 3, 1)
        both = np.where((column < (COLUMNS - 1) // 2)[:, None, None], mine, other).reshape(-1, 3)
        rows.append(both[:, [0, 2, 1]] if turned else both)
    return np.concatenate([faces[:first], *rows])


def bound_splats(
    splats: Splats,
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    face: Int[np.ndarray, " N"],
    origins: Float[np.ndarray, "N 3"] | None = None,
) -> Splats:
    """Splats in the frames of their faces, in units of these faces' scales: what `Bound` holds of them.

    Centres are counted from `origins`, by default from those of the faces.
    """
    center, axes, scale = face_frames(vertices, faces)
    off = (splats.means - (center[face] if origins is None else origins)) / scale[face, None]
    turned = quats_of(axes)[face] * (1.0, -1.0, -1.0, -1.0)
    return replace(
        splats,
        means=np.einsum("nji,nj->ni", axes[face], off),
        scales=(splats.scales / scale[face, None]).astype(np.float32),
        quats=product(turned, splats.quats.astype(np.float64)).astype(np.float32),
    )


def face_frames(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]
) -> tuple[Float[np.ndarray, "F 3"], Float[np.ndarray, "F 3 3"], Float[np.ndarray, " F"]]:
    """Origin, axes (columns: the first edge, the normal, edge x normal) and scale of each face's frame."""
    corner, second, third = np.moveaxis(vertices[faces], 1, 0)
    edge, other = second - corner, third - corner
    length = np.linalg.norm(edge, axis=1)
    along = edge / np.maximum(length, 1e-12)[:, None]
    normal = np.cross(along, other)
    normal /= np.maximum(np.linalg.norm(normal, axis=1), 1e-12)[:, None]
    across = np.cross(along, normal)
    scale = 0.5 * (length + np.abs(np.einsum("fc,fc->f", across, other)))
    return vertices[faces].mean(axis=1), np.stack([along, normal, across], axis=2), scale


def quats_of(rotations: Float[np.ndarray, "F 3 3"]) -> Float[np.ndarray, "F 4"]:
    """Unit quaternions w, x, y, z of rotation matrices."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(rotations).as_quat()[:, [3, 0, 1, 2]]


def product(a: Float[np.ndarray, "N 4"], b: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
    """Quaternions (w, x, y, z) that turn by `b`, then by `a`."""
    aw, av, bw, bv = a[:, :1], a[:, 1:], b[:, :1], b[:, 1:]
    vector = aw * bv + bw * av + np.cross(av, bv)
    return np.concatenate([aw * bw - (av * bv).sum(axis=1, keepdims=True), vector], axis=1)


def _posed_head(model: HeadModel, path: Path, timestep: int) -> Float[np.ndarray, "V 3"]:
    optional = ("static_offset", "dynamic_offset")
    values = read_npz(path, _ADVICE, ("shape", "expr", *_POSES), optional)
    for name, value in values.items():
        if value.dtype.kind not in "fiu" or not np.isfinite(value).all():
            raise InputError(f"{path}: {name} holds values that are not numbers. {_ADVICE}")
    steps = len(np.atleast_2d(values["expr"]))
    if not 0 <= timestep < steps:
        raise InputError(f"{path}: has no timestep {timestep}, it has {steps}.")

    def row(name: str, size: int) -> torch.Tensor:
        value = np.atleast_2d(values[name])
        if value.ndim != 2 or len(value) not in (1, steps):
            raise InputError(f"{path}: {name} has the shape {values[name].shape}, not (timesteps, {size}). {_ADVICE}")
        chosen = value[timestep if len(value) > 1 else 0]
        if name in _POSES and len(chosen) != size:
            raise InputError(f"{path}: {name} has {len(chosen)} values, not {size}. {_ADVICE}")
        if len(chosen) > size and np.abs(chosen[size:]).max() > 0:
            raise InputError(f"{path}: {name} has {len(chosen)} values, '{model.name}' {size}. {_GET_FLAME}")
        out = np.zeros(size)
        out[: len(chosen)] = chosen[:size]
        return torch.as_tensor(out)[None]

    def offset(name: str) -> np.ndarray:
        value = np.asarray(values.get(name, np.zeros((1, 0, 3))), dtype=np.float64)
        value = value[None] if value.ndim == 2 else value
        if value.ndim != 3 or value.shape[2] != 3 or len(value) not in (1, steps) or value.shape[1] > model.n_vertices:
            raise InputError(f"{path}: {name} has the shape {value.shape}, not ({model.n_vertices}, 3). {_GET_FLAME}")
        out = np.zeros((model.n_vertices, 3))
        out[: value.shape[1]] = value[timestep if len(value) > 1 else 0]
        return out

    poses = {name: row(name, size).float() for name, size in _POSES.items()}
    added = torch.as_tensor(offset("static_offset") + offset("dynamic_offset"))[None].float()
    shape, expr = row("shape", model.n_shape)[0].float(), row("expr", model.n_expr).float()
    with torch.no_grad():
        out = model(shape, expr, static_offset=added, **poses)
    return out.vertices[0].double().numpy()
