"""A random head with a known truth: coefficients, offsets outside the basis, a unit and a place of its own."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.capture.similarity import apply_similarity, invert_similarity, similarity_matrix

if TYPE_CHECKING:
    from flame_fitting.head.model import HeadModel

UNITS = (("m", 1.0), ("cm", 100.0), ("mm", 1000.0), ("in", 1 / 0.0254), ("arbitrary", 3.7))
"""Name and size of one metre in it."""
MAX_TILT_DEGREES = 12.0
WAVELENGTHS = (0.045, 0.12)
"""Of the offsets, metres."""
ORTHOGONAL_TO = (40, 20)
"""Leading shape and expression components that the offsets have nothing of, before their peaks are rounded off."""
CALM_REGIONS = ("eyeballs", "eyelids", "lips_tight", "lip_inside", "left_eye", "right_eye")
"""Where offsets fade out: lids would dip into the eyeballs and lips into each other."""


@dataclass
class DemoHead:
    """The truth of a demo avatar."""

    shape: Float[ndarray, " S"]
    expr: Float[ndarray, "1 E"]
    neck_pose: Float[ndarray, "1 3"]
    jaw_pose: Float[ndarray, "1 3"]
    eyes_pose: Float[ndarray, "1 6"]
    static_offset: Float[ndarray, "1 V 3"]
    """Metres, head space, before posing."""
    head_from_world: Float[ndarray, "4 4"]
    vertices_world: Float[ndarray, "V 3"]
    unit: str
    mm_per_unit: float
    up: Float[ndarray, " 3"]
    """The head's up in avatar coordinates."""
    forward: Float[ndarray, " 3"]


def draw_head(
    head: "HeadModel",
    shape_sigma: float,
    expr_sigma: float,
    offset: float,
    rng: np.random.Generator,
    rig: bool = False,
) -> DemoHead:
    """Draws a head. `offset` is the RMS of the offsets over the face, metres.

    `rig` puts it where a calibrated camera rig has it: in metres, upright up to a tilt, near the origin; its offsets
    then hold nothing that any of the model's components can express.
    """
    import torch

    shape = shape_sigma * rng.standard_normal(head.n_shape)
    # the first components make most of an expression; all together at one sigma no face does
    expr = expr_sigma * rng.standard_normal((1, head.n_expr))
    jaw = np.array([[rng.uniform(0.03, 0.09), rng.normal(0, 0.01), 0.0]])
    neck = rng.normal(0, [0.05, 0.06, 0.04], (1, 3))
    gaze = np.append(rng.normal(0, 0.06), rng.normal(0, 0.12))
    eyes = np.array([[gaze[0], gaze[1], 0.0, gaze[0], gaze[1], 0.0]])
    if rig:
        offsets = without_components(head, outside_offsets(head, offset, rng, (head.n_shape, head.n_expr)), offset)[
            None
        ]
    else:
        offsets = outside_offsets(head, offset, rng)[None]
    poses = {"expr": expr, "neck_pose": neck, "jaw_pose": jaw, "eyes_pose": eyes, "static_offset": offsets}
    # float64: the truth is exact, not rounded to the model's own type
    model = head.double()
    with torch.no_grad():
        vertices = (
            model(shape=torch.as_tensor(shape), **{name: torch.as_tensor(value) for name, value in poses.items()})
            .vertices[0]
            .numpy()
        )
    head.float()

    if rig:
        (unit, per_metre), turn, place = UNITS[0], _tilt(rng), rng.uniform(-0.03, 0.03, 3)
    else:
        unit, per_metre = UNITS[rng.integers(len(UNITS))]
        turn = _random_axes(rng) @ _tilt(rng)
        place = rng.uniform(-1.5, 1.5, 3) * per_metre
    world_from_head = similarity_matrix(per_metre, turn, place)
    return DemoHead(
        shape=shape,
        expr=expr,
        neck_pose=neck,
        jaw_pose=jaw,
        eyes_pose=eyes,
        static_offset=offsets,
        head_from_world=invert_similarity(world_from_head),
        vertices_world=apply_similarity(world_from_head, vertices),
        unit=unit,
        mm_per_unit=1000.0 / per_metre,
        up=turn[:, 1],
        forward=turn[:, 2],
    )


def outside_offsets(
    head: "HeadModel", rms: float, rng: np.random.Generator, leading: tuple[int, int] = ORTHOGONAL_TO
) -> Float[ndarray, "V 3"]:
    """Smooth offsets that the bases hardly express, zero on eyeballs, calm at lids and lips; `rms` over the face.

    They have nothing of the `leading` shape and expression components, before their peaks are rounded off.
    """
    vertices = head.v_template.numpy().astype(np.float64)
    parts = [head.shapedirs[..., : leading[0]], head.exprdirs[..., : leading[1]]]
    basis = np.concatenate([part.numpy() for part in parts], axis=2).astype(np.float64)
    basis = basis.reshape(3 * len(vertices), -1)
    calm = calm_mask(head)
    # many smooth waves, and of all their sums one that is orthogonal to the leading components
    count = basis.shape[1] + 300
    direction = rng.standard_normal((count, 3))
    wave = direction * (2 * np.pi / rng.uniform(*WAVELENGTHS, count) / np.linalg.norm(direction, axis=1))[:, None]
    values = np.sin(vertices @ wave.T + rng.uniform(0, 2 * np.pi, count)) * calm[:, None]
    waves = (values[:, None, :] * rng.standard_normal((3, count))).reshape(-1, count)
    amounts = rng.standard_normal(count)
    forbidden = (basis / np.linalg.norm(basis, axis=0)).T @ waves
    amounts -= np.linalg.lstsq(forbidden, forbidden @ amounts, rcond=None)[0]
    field = (waves @ amounts).reshape(-1, 3)
    face = head.regions["face"].numpy()
    for _ in range(3):
        # peaks are rounded off
        field *= rms / np.sqrt((field[face] ** 2).sum(1).mean())
        field /= np.sqrt(1 + (field**2).sum(1, keepdims=True) / (2 * rms) ** 2)
    return field * (rms / np.sqrt((field[face] ** 2).sum(1).mean()))


def without_components(head: "HeadModel", field: Float[ndarray, "V 3"], rms: float) -> Float[ndarray, "V 3"]:
    """Offsets without what shape and expression components can express of them; `rms` over the face."""
    basis = np.concatenate([head.shapedirs.numpy(), head.exprdirs.numpy()], axis=2).astype(np.float64)
    basis = basis.reshape(field.size, -1)
    left = (field.reshape(-1) - basis @ np.linalg.lstsq(basis, field.reshape(-1), rcond=None)[0]).reshape(-1, 3)
    return left * (rms / np.sqrt((left[head.regions["face"].numpy()] ** 2).sum(1).mean()))


def calm_mask(head: "HeadModel", reach: float = 0.012) -> Float[ndarray, " V"]:
    """0 where offsets would make parts meet, 1 beyond `reach` metres from there."""
    from scipy.spatial import cKDTree

    vertices = head.v_template.numpy().astype(np.float64)
    still = head.region_mask(*CALM_REGIONS).numpy()
    if not still.any():
        return np.ones(len(vertices))
    distance = cKDTree(vertices[still]).query(vertices)[0]
    t = np.clip(distance / reach, 0, 1)
    mask = 0.15 + 0.85 * t * t * (3 - 2 * t)
    mask[head.region_mask("eyeballs", "lip_inside").numpy()] = 0.0
    return mask


def _random_axes(rng: np.random.Generator) -> Float[ndarray, "3 3"]:
    """One of the 24 turns that take axes to axes."""
    while True:
        matrix = np.zeros((3, 3))
        matrix[np.arange(3), rng.permutation(3)] = rng.choice([-1.0, 1.0], 3)
        if np.linalg.det(matrix) > 0:
            return matrix


def _tilt(rng: np.random.Generator) -> Float[ndarray, "3 3"]:
    """A small turn about a random axis."""
    from scipy.spatial.transform import Rotation

    axis = rng.standard_normal(3)
    angle = np.radians(rng.uniform(2.0, MAX_TILT_DEGREES))
    return Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()
