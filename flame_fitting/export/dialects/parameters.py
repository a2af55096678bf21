"""FLAME parameters of a sequence in one form that every dialect can be read into and written from.

    x_world = scale * (R(world_rotation) @ FLAME(shape, expr, rotation, ...) + translation)

`rotation` turns about the model's root joint, as FLAME itself does; `world_rotation` turns about the origin, as in
programs that move the finished mesh. One is turned into the other with the root joint of the model, which depends on
shape, expression and offsets: only that needs a head model.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.export.dialects.rotations import compose, matrix_from_axis_angle
from flame_fitting.fit.parameters import POSES
from flame_fitting.head.model import HeadModel


@dataclass(eq=False)
class FlameParams:
    """Parameters of T timesteps: radians (axis-angle), metres, head axes (+Y up, face toward +Z)."""

    shape: Float[ndarray, " S"]
    expr: Float[ndarray, "T E"]
    rotation: Float[ndarray, "T 3"]
    """About the root joint."""
    translation: Float[ndarray, "T 3"]
    """Added after posing and after `world_rotation`."""
    neck_pose: Float[ndarray, "T 3"]
    jaw_pose: Float[ndarray, "T 3"]
    eyes_pose: Float[ndarray, "T 6"]
    """Left (joint 3), then right (joint 4)."""
    world_rotation: Float[ndarray, "T 3"]
    """About the origin, after posing."""
    scale: float = 1.0
    """Factor on everything, about the origin, last."""
    static_offset: Float[ndarray, "1 V 3"] | None = None
    """Added to the template with shape and expression."""
    template: Float[ndarray, "V 3"] | None = None
    """Stands in for the head model's own template, where a file says so: its static offsets are in it."""
    dynamic_offset: Float[ndarray, "T V 3"] | None = None
    """The same, for each timestep."""
    eyelids: Float[ndarray, "T 2"] | None = None
    """Of two blendshapes that are no part of FLAME: metrical-tracker's, or this program's. Left, right; 1 is shut."""
    timestep_id: list[str] = field(default_factory=list)
    head_model: tuple[str, str] | None = None
    """Name and SHA-256 of the head model, where the file says so."""
    head_identity: str = ""
    """What else tells the head model from others: JSON of this program's own fits."""
    extras: dict[str, Any] = field(default_factory=dict)
    """What else the file holds and no other dialect understands: lights, textures, cameras."""
    notes: list[str] = field(default_factory=list)
    """What a user should know about how the file was read."""

    @property
    def count(self) -> int:
        """T."""
        return len(self.expr)

    def offsets(self) -> Float[ndarray, "T1 V 3"] | None:
        """Static and dynamic offsets together (1 or T, V, 3)."""
        present = [o for o in (self.static_offset, self.dynamic_offset) if o is not None]
        return sum(present[1:], present[0]) if present else None

    def at(self, timestep: int) -> "FlameParams":
        """One timestep alone."""
        rows = slice(timestep, timestep + 1)
        timed = ("expr", *POSES, "world_rotation")
        changed: dict[str, Any] = {name: getattr(self, name)[rows] for name in timed}
        for name in ("dynamic_offset", "eyelids"):
            value = getattr(self, name)
            changed[name] = None if value is None else value[rows]
        changed["timestep_id"] = self.timestep_id[rows]
        changed["extras"] = {
            name: value[rows] if name in PER_TIMESTEP_EXTRAS else value for name, value in self.extras.items()
        }
        return replace(self, **changed)


PER_TIMESTEP_EXTRAS = ("world_to_camera",)
"""Extras with one row per timestep."""


def make_params(
    source: str, *, shape: ndarray, expr: ndarray, poses: dict[str, ndarray | None], **others: Any
) -> FlameParams:
    """`FlameParams` from arrays as they come: shape (S,) or (T or 1, S), the rest (T, n), (n,) or None for zeros.

    A single row stands for all timesteps.
    """
    expr = _rows(source, "expression", expr)
    widths = {**POSES, "world_rotation": 3}
    given = {name: _rows(source, name, value) for name, value in poses.items() if value is not None}
    for name, value in given.items():
        if value.shape[1] != widths[name]:
            raise InputError(f"{source}: {name} has {value.shape[1]} numbers a timestep, {widths[name]} are expected.")
    counts = {len(value) for value in (expr, *given.values())} - {1}
    if len(counts) > 1:
        raise InputError(f"{source}: its arrays have different numbers of timesteps ({sorted(counts)}).")
    count = counts.pop() if counts else 1
    shape = _rows(source, "shape", shape)
    notes = list(others.pop("notes", []))
    if len(shape) > 1 and np.abs(shape - shape[:1]).max() > 1e-6:
        text = "shape differs between timesteps; the first one's is taken for all. Use --timestep for another"
        notes.append(text)

    def timed(value: ndarray | None, width: int) -> ndarray:
        return np.zeros((count, width)) if value is None else np.broadcast_to(value, (count, width)).copy()

    values: dict[str, Any] = {name: timed(given.get(name), width) for name, width in widths.items()}
    params = FlameParams(shape=shape[0], expr=timed(expr, expr.shape[1]), notes=notes, **values, **others)
    if not np.isfinite(params.scale) or params.scale <= 0:
        raise InputError(f"{source}: its scale is {params.scale}, a positive number is expected.")
    return params


def checked_eyelids(source: str, value: Any) -> Float[ndarray, "T 2"] | None:
    """As they stand in a file; None where it has none."""
    if value is None:
        return None
    eyelids = _rows(source, "eyelids", value)
    if eyelids.shape[1] != 2:
        raise InputError(f"{source}: eyelids has shape {eyelids.shape}, (T, 2) is expected.")
    return eyelids


def template_as_offset(params: FlameParams, head: HeadModel) -> FlameParams:
    """The same vertices with what the file's template has more than the head model's as static offset."""
    if params.template is None:
        return params
    own = _template_of(head)
    if params.template.shape != own.shape:
        raise InputError(
            f"--head {head.name}: has {len(own)} vertices, the parameters' v_template has {len(params.template)}. "
            "Give the head model that they were made with."
        )
    return replace(params, template=None, static_offset=(params.template - own)[None])


def offset_as_template(params: FlameParams, head: HeadModel) -> FlameParams:
    """The same vertices with the static offset added to the head model's template; teeth, which come last, go."""
    own, offset = _template_of(head), params.static_offset
    if offset is None:
        return params
    if offset.shape[1] < len(own):
        raise InputError(
            f"--head {head.name}: has {len(own)} vertices, the parameters' static_offset has {offset.shape[1]}. "
            "Give the head model that they were made with."
        )
    return replace(params, static_offset=None, template=own + offset[0, : len(own)])


def _template_of(head: HeadModel) -> Float[ndarray, "V 3"]:
    return head.v_template.double().cpu().numpy()


def root_joint(params: FlameParams, head: HeadModel) -> Float[ndarray, "T 3"]:
    """Where `rotation` pivots, before any pose."""
    with torch.no_grad():
        joints = head(**_identity(params, head)).joints[:, 0]
    return np.broadcast_to(joints.double().numpy(), (params.count, 3))


def about_root_joint(params: FlameParams, joint: Float[ndarray, "T 3"]) -> FlameParams:
    """The same vertices with all rotation about the root joint (T, 3): R (x - j) + j + t' = R x + t."""
    outer = matrix_from_axis_angle(params.world_rotation)
    return replace(
        params,
        rotation=compose(params.world_rotation, params.rotation),
        world_rotation=np.zeros_like(params.rotation),
        translation=params.translation + np.einsum("tab,tb->ta", outer, joint) - joint,
    )


def about_origin(params: FlameParams, joint: Float[ndarray, "T 3"]) -> FlameParams:
    """The same vertices with all rotation about the origin."""
    turned = compose(params.world_rotation, params.rotation)
    inner = joint - np.einsum("tab,tb->ta", matrix_from_axis_angle(params.rotation), joint)
    outer = matrix_from_axis_angle(params.world_rotation)
    return replace(
        params,
        rotation=np.zeros_like(params.rotation),
        world_rotation=turned,
        translation=params.translation + np.einsum("tab,tb->ta", outer, inner),
    )


def _identity(params: FlameParams, head: HeadModel) -> dict[str, torch.Tensor]:
    """Arguments of the head model that decide its rest joints, in the model's own sizes."""
    params = template_as_offset(params, head)
    vertex_count = head.v_template.shape[0]
    arrays = {
        "shape": _cut("shape", params.shape, head.shapedirs.shape[-1], head.name),
        "expr": _cut("expression", params.expr, head.exprdirs.shape[-1], head.name),
    }
    offsets = params.offsets()
    if offsets is not None:
        # teeth stand behind FLAME's own vertices and move no joint
        missing = max(0, vertex_count - offsets.shape[1])
        arrays["static_offset"] = np.pad(offsets, ((0, 0), (0, missing), (0, 0)))[:, :vertex_count]
    return {name: torch.as_tensor(np.ascontiguousarray(a)).to(head.v_template) for name, a in arrays.items()}


def _cut(name: str, values: ndarray, size: int, head_name: str) -> ndarray:
    if values.shape[-1] > size and np.any(values[..., size:]):
        raise InputError(
            f"--head {head_name}: has {size} {name} components, and the parameters use {values.shape[-1]}. "
            "Give the head model that they were made with."
        )
    return values[..., :size]


def _rows(source: str, name: str, value: Any) -> ndarray:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{source}: {name} is not an array of numbers.") from error
    if array.ndim == 0 or array.ndim > 2 or not array.size:
        raise InputError(f"{source}: {name} has shape {array.shape}, (timesteps, numbers) is expected.")
    if not np.isfinite(array).all():
        raise InputError(f"{source}: {name} holds values that are not finite.")
    return array.reshape(-1, array.shape[-1])
