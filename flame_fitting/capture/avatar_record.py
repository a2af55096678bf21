"""avatar.json: what is known of the avatar that a capture was rendered from."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from flame_fitting.capture.roles import Role
from flame_fitting.errors import InputError
from flame_fitting.files import read_json_object


class _WrongFieldError(Exception):
    """A field that is not what it should be; says which and why."""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _similarity(value: Any) -> NDArray[np.float64]:
    matrix = np.asarray(value, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or np.linalg.det(matrix[:3, :3]) <= 0:
        raise ValueError
    return matrix


def _vector(value: Any) -> NDArray[np.float64]:
    vector = np.asarray(value, dtype=np.float64)
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise ValueError
    return vector


def _role(value: Any) -> Role:
    if value not in get_args(Role):
        raise ValueError
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _several(read: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def read_all(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise TypeError
        return tuple(read(entry) for entry in value)

    return read_all


# How a field is read, and what it should be.
_TEXT = {"read": _text, "expected": "text"}
_TEXTS = {"read": _several(_text), "expected": "a list of texts"}
_NUMBER = {"read": _number, "expected": "a number"}
_COUNT = {"read": _count, "expected": "a whole number"}
_SIMILARITY = {"read": _similarity, "expected": "a 4x4 similarity"}
_VECTOR = {"read": _vector, "expected": "three numbers"}
_ROLE = {"read": _role, "expected": f"one of {', '.join(get_args(Role))}"}
_OBJECTS = {"read": _several(_object), "expected": "a list of objects"}


def _record(kind: type, value: Any) -> Any:
    """A dataclass from a JSON object, each field by the reader in its metadata."""
    data, found = _object(value), {}
    for one in dataclasses.fields(kind):
        if data.get(one.name) is None:
            if one.default is dataclasses.MISSING:
                raise _WrongFieldError(f"{one.name} is missing")
            continue
        try:
            found[one.name] = one.metadata["read"](data[one.name])
        except _WrongFieldError as error:
            raise _WrongFieldError(f"{one.name}.{error}") from None
        except (TypeError, ValueError, OverflowError):
            raise _WrongFieldError(f"{one.name} is not {one.metadata['expected']}") from None
    return kind(**found)


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction in the world."""

    axis: str = field(metadata=_TEXT)
    """The nearest axis, e.g. `+Y`."""
    vector: NDArray[np.float64] = field(metadata=_VECTOR)
    """(3,) unit."""


@dataclass(frozen=True)
class ViewAngles:
    """Where a planned view looks from."""

    role: Role = field(metadata=_ROLE)
    yaw: float = field(metadata=_NUMBER)
    """Degrees around the head's up axis from its front, positive toward its left."""
    pitch: float = field(metadata=_NUMBER)
    """Degrees above the head's horizon."""


_DIRECTION = {"read": lambda value: _record(Direction, value), "expected": "an object"}
_PLAN = {"read": _several(lambda value: _record(ViewAngles, value)), "expected": "a list of views"}


@dataclass(frozen=True, eq=False)
class FaceRecord:
    """How the face was found. What an older file does not say is None."""

    head_from_world: NDArray[np.float64] | None = field(default=None, metadata=_SIMILARITY)
    """(4, 4), world to head space in metres, as the search left it."""
    mm_per_unit: float | None = field(default=None, metadata=_NUMBER)
    up: Direction | None = field(default=None, metadata=_DIRECTION)
    forward: Direction | None = field(default=None, metadata=_DIRECTION)
    residual_mm: float | None = field(default=None, metadata=_NUMBER)
    """Weighted RMS over the 51 inner landmarks, head-space mm."""
    residual_relative: float | None = field(default=None, metadata=_NUMBER)
    """The same over the distance of the outer eye corners."""
    shading: str | None = field(default=None, metadata=_TEXT)
    """unlit or clay: the pictures in which it was found."""
    views_with_face: int | None = field(default=None, metadata=_COUNT)
    """Of the seven around it."""
    probes_rendered: int | None = field(default=None, metadata=_COUNT)
    """Pictures of the search."""
    probes_with_face: tuple[dict[str, Any], ...] | None = field(default=None, metadata=_OBJECTS)
    """The part and directions of every picture with a face, and what became of it."""


@dataclass(frozen=True, eq=False)
class PartRecord:
    """One of several captures that a capture was joined of."""

    timesteps: tuple[str, ...] = field(metadata=_TEXTS)
    """Names of its timesteps."""
    capture: str = field(metadata=_TEXT)
    """Its folder as it was given."""
    file: str | None = field(default=None, metadata=_TEXT)
    """The avatar's file that it was rendered from."""
    sha256: str | None = field(default=None, metadata=_TEXT)
    landmark_shading: str | None = field(default=None, metadata=_TEXT)
    """How its landmark views are shaded."""
    world_from_own: NDArray[np.float64] | None = field(default=None, metadata=_SIMILARITY)
    """(4, 4), from its own world to the joined capture's."""


_PARTS = {"read": _several(lambda value: _record(PartRecord, value)), "expected": "a list of captures"}
_FACE = {"read": lambda value: _record(FaceRecord, value), "expected": "an object"}


@dataclass(frozen=True, eq=False)
class AvatarRecord:
    """Of a capture without an avatar all fields are None, and so is what an older file does not say."""

    file: str | None = field(default=None, metadata=_TEXT)
    """The avatar's file as it was given."""
    sha256: str | None = field(default=None, metadata=_TEXT)
    """Of the avatar with the files that it refers to."""
    format: str | None = field(default=None, metadata=_TEXT)
    """Suffix of its file, e.g. `glb`."""
    geometry: str | None = field(default=None, metadata=_TEXT)
    """What its surface is made of: mesh, scan or splats."""
    notes: tuple[str, ...] | None = field(default=None, metadata=_TEXTS)
    """What was done to the file's content, in plain words."""
    warnings: tuple[str, ...] | None = field(default=None, metadata=_TEXTS)
    """What the file lacks that makes a fit worse."""
    face: FaceRecord | None = field(default=None, metadata=_FACE)
    head_from_world: NDArray[np.float64] | None = field(default=None, metadata=_SIMILARITY)
    """(4, 4), world to head space in metres: the frame that the views were planned in."""
    landmark_shading: str | None = field(default=None, metadata=_TEXT)
    """How the landmark views are shaded: unlit, lit or clay."""
    views: tuple[ViewAngles, ...] | None = field(default=None, metadata=_PLAN)
    """The view plan, in the order of the cameras."""
    parts: tuple[PartRecord, ...] | None = field(default=None, metadata=_PARTS)
    """What it was joined of; what stands above is then the first one's."""
    morphs: tuple[str, ...] | None = field(default=None, metadata=_TEXTS)
    """Morph targets of the avatar that its timesteps after the first show, in their order, each at weight 1."""

    def as_json(self) -> dict[str, Any]:
        """The content of avatar.json; what is None is left out."""
        return _as_json(self)


def read_avatar_record(path: Path, advice: str) -> AvatarRecord:
    """Reads avatar.json, where there is one; keys that are not known are passed over.

    Raises InputError, with `advice` at its end, where a field is not what it should be.
    """
    if not path.is_file():
        return AvatarRecord()
    try:
        return _record(AvatarRecord, read_json_object(path, advice))
    except _WrongFieldError as error:
        raise InputError(f"{path}: {error}. {advice}") from None


def _as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((one.name, getattr(value, one.name)) for one in dataclasses.fields(value))
        return {name: _as_json(inner) for name, inner in pairs if inner is not None}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_as_json(inner) for inner in value] if isinstance(value, (list, tuple)) else value
