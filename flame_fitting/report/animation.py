"""How a fitted head moves: its neutral face, and what joints and expressions do to it, with numbers for each pose."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.fit.contact import lower_lip
from flame_fitting.fit.intersections import crossing_pairs
from flame_fitting.fit.penetration import passed_through
from flame_fitting.fit.result import FitResult
from flame_fitting.head.apertures import LID_COLUMNS, Apertures, apertures_of, closing_expression
from flame_fitting.head.eyelids import closing_eyelids
from flame_fitting.head.model import HeadModel

JAW_OPEN = 0.25
"""Radians."""
GAZE = 20.0
"""Degrees."""
EXPRESSIONS, EXPRESSION_SIZE = 3, 2.0
"""How many of the first expressions are shown, and at which coefficients, with both signs."""
_OWN = ("expr", "eyelids", "jaw_pose", "eyes_pose")
"""What of a fit makes its head another one than its neutral."""
_JAW, _EYES = 2, (3, 4)
"""Joints of a head model."""


@dataclass(eq=False)
class Pose:
    """One pose of the sheet. The head itself stands still: neither turned nor moved, its neck at rest."""

    name: str
    """Key in metrics.json."""
    title: str
    vertices: Float[ndarray, "V 3"]
    """Head space, metres."""
    expression: Float[ndarray, " E"]


@dataclass(eq=False)
class Animation:
    """Poses in rows of two that belong together, and what was measured on them."""

    timestep: str
    """Of the fit that is shown."""
    rows: list[list[Pose]]
    apertures: Apertures | None
    """None for a head model without eyes or lips to measure."""
    numbers: dict[str, dict[str, Any]]
    """By name of the pose."""

    @property
    def poses(self) -> list[Pose]:
        """All of them, in their order."""
        return [pose for row in self.rows for pose in row]

    def as_metrics(self) -> dict[str, Any]:
        """For metrics.json."""
        return {"timestep": self.timestep, "poses": self.numbers}


def animate(fit: FitResult, head: HeadModel, row: int = 0) -> Animation:
    """The fit at a timestep and its neutral head in other poses; those that the head model cannot show are left out."""
    apertures = apertures_of(head)
    rows = list(_rows(fit.of_rows([row]), head, apertures))
    measure = _Contact(head, apertures)
    return Animation(
        fit.timestep_id[row], rows, apertures, {pose.name: measure.of(pose) for pair in rows for pose in pair}
    )


def animate_moments(fit: FitResult, head: HeadModel, rows: Sequence[int]) -> Animation:
    """The neutral head, and its expression at each of some timesteps, by their names."""
    apertures = apertures_of(head)
    neutral = next(_rows(fit.of_rows(rows[:1]), head, apertures))[1]
    poses = [neutral]
    for row in rows:
        own = next(_rows(fit.of_rows([row]), head, apertures))[0]
        poses.append(replace(own, name=f"moment_{row}", title=fit.timestep_id[row]))
    measure = _Contact(head, apertures)
    pairs = [poses[start : start + 2] for start in range(0, len(poses), 2)]
    return Animation("", pairs, apertures, {pose.name: measure.of(pose) for pose in poses})


def _rows(fit: FitResult, head: HeadModel, apertures: Apertures | None) -> Iterator[list[Pose]]:
    parameters = {key: fit.parameters[key] for key in ("shape", "static_offset")}
    expressions = fit.parameters["expr"].shape[1]

    def pose(name: str, title: str, **moved: ndarray) -> Pose:
        values = parameters | moved
        with torch.no_grad():
            vertices = head(
                **{key: torch.as_tensor(value).to(head.v_template) for key, value in values.items()}
            ).vertices
        expression = moved["expr"][0] if "expr" in moved else np.zeros(expressions)
        return Pose(name, title, vertices[0].double().cpu().numpy(), expression)

    own: dict[str, ndarray] = {key: fit.parameters[key] for key in _OWN if key in fit.parameters}
    if "dynamic_offset" in fit.parameters:
        own["static_offset"] = parameters["static_offset"] + fit.parameters["dynamic_offset"]
    neutral = pose("neutral", "neutral: no expression, joints at rest")
    yield [pose("fit", "the fit", **own), neutral]
    moved = (head.weights > 0.5).any(0).cpu().numpy()
    second = []
    if moved[_JAW]:
        title = f"jaw open by {JAW_OPEN:g} rad ({np.degrees(JAW_OPEN):.0f} degrees)"
        second.append(pose("jaw_open", title, jaw_pose=np.array([[JAW_OPEN, 0.0, 0.0]])))
    if head.n_eyelids and apertures is not None:
        shut = closing_eyelids(head, apertures, neutral.vertices)
        title = f"lids closed, by eyelids at {shut[0]:.2f} (left) and {shut[1]:.2f}"
        second.append(pose("lids_closed", title, eyelids=shut[None]))
    elif apertures is not None:
        shut = closing_expression(head, apertures, neutral.vertices)
        second.append(pose("lids_closed", "lids closed, by expression", expr=shut[None]))
    if second:
        yield second
    if moved[list(_EYES)].all():
        for directions in ({"left": (0, 1), "right": (0, -1)}, {"up": (-1, 0), "down": (1, 0)}):
            yield [
                pose(f"gaze_{side}", f"looks {GAZE:g} degrees {where}", eyes_pose=np.array([[*turn, 0.0] * 2]))
                for side, signs in directions.items()
                for where in [f"to its {side}" if side in ("left", "right") else side]
                for turn in [np.radians(GAZE) * np.array(signs)]
            ]
    for k in range(min(EXPRESSIONS, expressions)):
        yield [
            pose(f"expression_{k + 1}_{word}", f"expression {k + 1} at {size:+g}", expr=size * np.eye(expressions)[[k]])
            for word, size in (("plus", EXPRESSION_SIZE), ("minus", -EXPRESSION_SIZE))
        ]


class _Contact:
    """Measures where lips, lids and eyeballs of a pose meet."""

    def __init__(self, head: HeadModel, apertures: Apertures | None) -> None:
        self.apertures, self.head_faces, self.faces = apertures, head.faces.cpu(), head.faces.cpu().numpy()
        inside = {
            name: head.face_mask(*regions).cpu().numpy()
            for name, regions in {
                "lips": ("lips", "lips_tight"),
                "lids": ("eyelids",),
                "eyeballs": ("eyeballs",),
                "teeth": ("teeth",),
            }.items()
        }
        self.parts = {name: np.flatnonzero(mask) for name, mask in inside.items()}
        if apertures is not None:
            lower = lower_lip(head, apertures)
            self.parts |= {
                "upper": np.flatnonzero(inside["lips"] & ~lower),
                "lower": np.flatnonzero(inside["lips"] & lower),
            }

    def of(self, pose: Pose) -> dict[str, Any]:
        """Counts of triangles and millimetres; only what the head model has."""
        vertices, parts = pose.vertices, self.parts
        out: dict[str, Any] = {"expression_max": float(np.abs(pose.expression).max(initial=0.0))}
        pairs = crossing_pairs(vertices, self.faces, parts["lips"], parts["lips"])
        if len(parts["lips"]):
            out["lips_crossing"] = len(np.unique(pairs))
        if self.apertures is not None:
            gaps = 1000 * self.apertures.gaps(torch.as_tensor(vertices)[None], self.head_faces)[0].numpy()
            out["lips_depth_mm"] = self._depth(vertices, pairs, ("upper", "lower"), ("lower", "upper"))
            out["lip_gap_mm"] = float(gaps[2 * LID_COLUMNS :].mean())
            out["lid_gap_mm"] = [float(gaps[k : k + LID_COLUMNS].mean()) for k in (0, LID_COLUMNS)]
        if len(parts["lids"]) and len(parts["eyeballs"]):
            pairs = crossing_pairs(vertices, self.faces, parts["lids"], parts["eyeballs"])
            out["lids_depth_mm"] = self._depth(vertices, pairs, ("lids", "eyeballs"))
        if len(parts["lips"]) and len(parts["teeth"]):
            pairs = crossing_pairs(vertices, self.faces, parts["teeth"], parts["lips"])
            out["teeth_crossing"] = len(np.intersect1d(pairs, parts["teeth"]))
        return out

    def _depth(self, vertices: ndarray, pairs: ndarray, *parts: tuple[str, str]) -> float:
        """95th percentile over the vertices that have passed through; 0 where none have."""
        ids = [(self.parts[a], self.parts[b]) for a, b in parts]
        found = np.concatenate([passed_through(vertices, self.faces, *each, pairs)[1] for each in ids])
        return 1000 * float(np.percentile(found, 95)) if len(found) else 0.0
