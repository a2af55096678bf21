"""The sliders that pose a head, and what they do to a pose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.fit.parameters import EYELIDS
from flame_fitting.head.actions import Actions, actions_of
from flame_fitting.head.model import HeadModel
from flame_fitting.viewer.poses import Pose

_DEGREE, _MILLIMETRE = float(np.pi / 180), 0.001
FITTED = "fitted expression"
_GROUPS = {"brow": "Brows", "eye": "Lids", "cheek": "Cheeks and nose", "nose": "Cheeks and nose", "jaw": "Mouth"}
_AT_ONCE = 20
"""Components of expression in a group."""


@dataclass(frozen=True)
class Control:
    """One slider. A coefficient of a parameter, or (`action`) an amount that is added to the expression."""

    name: str
    """What stands beside it."""
    group: str
    parameter: str
    index: int
    low: float
    high: float
    step: float
    unit: float = 1.0
    """What 1 on the slider is in the parameter's own unit."""
    action: Float[ndarray, " E"] | None = None
    """Coefficients of the expression at an amount of 1."""
    hint: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Tells it from all others."""
        return (self.group, self.name)


def controls_of(head: HeadModel, poses: Sequence[Pose]) -> list[Control]:
    """All sliders of a head, by group. Ranges hold what the `poses` (those of the fit) have."""
    actions = actions_of(head)
    out = _expressions(head, poses) if actions is None else _actions(actions)
    if head.n_eyelids:
        for index, side in enumerate(("left", "right")):
            hint = "0 is open, 1 is shut"
            out.append(Control(f"lid {side}", "Lids", "eyelids", index, EYELIDS[0], EYELIDS[1], 0.01, hint=hint))
    for group, parameter, start, names, low, high in _JOINTS:
        out += [
            Control(name, group, parameter, start + k, low[k], high[k], 0.1, _DEGREE, hint=_TURN)
            for k, name in enumerate(names)
        ]
    for index, name in enumerate(("x (to its left)", "y (up)", "z (forward)")):
        out.append(Control(name, "Root: place, mm", "translation", index, -200.0, 200.0, 0.5, _MILLIMETRE))
    return [_widened(one, poses) for one in out]


_TURN = "Degrees, a component of the joint's axis-angle vector"
_JOINTS = (
    ("Jaw", "jaw_pose", 0, ("open", "to its left", "roll"), (-5.0, -15.0, -10.0), (35.0, 15.0, 10.0)),
    ("Neck", "neck_pose", 0, ("nod", "turn to its left", "tilt"), (-45.0, -70.0, -40.0), (45.0, 70.0, 40.0)),
    ("Eyes", "eyes_pose", 0, ("left: down", "left: to its left"), (-35.0, -40.0), (35.0, 40.0)),
    ("Eyes", "eyes_pose", 3, ("right: down", "right: to its left"), (-35.0, -40.0), (35.0, 40.0)),
    ("Root: turn", "rotation", 0, ("nod", "turn to its left", "tilt"), (-180.0,) * 3, (180.0,) * 3),
)
"""Group, parameter, first coefficient, names, least and greatest degrees. Left and right are the subject's."""


def value_of(control: Control, pose: Pose) -> float:
    """Where a slider stands for a pose that was not made with it."""
    if control.action is not None:
        return 0.0
    if control.name == FITTED:
        return 1.0
    return float(pose[control.parameter][control.index]) / control.unit


def moved(base: Pose, controls: Sequence[Control], values: Mapping[tuple[str, str], float]) -> dict[str, ndarray]:
    """A pose with the sliders that were moved; what none of them has is as in `base`, to the last bit."""
    pose = {name: value.copy() for name, value in base.items()}
    given = [(control, values[control.key]) for control in controls if control.key in values]
    for control, value in given:
        if control.name == FITTED:
            pose["expr"] = pose["expr"] * value
    for control, value in given:
        if control.action is not None:
            pose["expr"] = pose["expr"] + value * control.action
        elif control.name != FITTED:
            pose[control.parameter][control.index] = value * control.unit
    return pose


def _actions(actions: Actions) -> list[Control]:
    out = [Control(FITTED, "Expression", "expr", 0, 0.0, 1.5, 0.01, hint="1 is as fitted, 0 is none")]
    for name, coefficients in zip(actions.names, actions.coefficients, strict=True):
        group = next((group for start, group in _GROUPS.items() if name.startswith(start)), "Mouth")
        hint = "Added to the fitted expression; 1 is full strength"
        out.append(Control(name, group, "expr", 0, -0.5, 1.5, 0.01, action=coefficients, hint=hint))
    return sorted(out, key=lambda one: 0 if one.name == FITTED else 1 + _ORDER.index(one.group))


_ORDER = ("Brows", "Lids", "Cheeks and nose", "Mouth")


def _expressions(head: HeadModel, poses: Sequence[Pose]) -> list[Control]:
    count = min(head.n_expr, min(len(pose["expr"]) for pose in poses))
    out = []
    for index in range(count):
        first = index // _AT_ONCE * _AT_ONCE
        group = f"Expression {first + 1} to {min(first + _AT_ONCE, count)}"
        hint = "In standard deviations of the head model"
        out.append(Control(f"expr_{index}", group, "expr", index, -3.0, 3.0, 0.01, hint=hint))
    return out


def _widened(control: Control, poses: Sequence[Pose]) -> Control:
    """With a range that holds what the fit has."""
    if control.action is not None or control.name == FITTED:
        return control
    found = [value_of(control, pose) for pose in poses]
    step = control.step
    low = min(control.low, float(np.floor(min(found) / step) * step))
    return replace(control, low=low, high=max(control.high, float(np.ceil(max(found) / step) * step)))
