"""What the fit optimises, for T timesteps, and how it becomes vertices.

`PARAMETERS` says what there is to know of each parameter; whatever names, sizes, moves or weighs them derives from it.

Gauge: the head moves in the *reference frame*, which is head space as first estimated: `reference_from_world` is fixed
at the start and maps the avatar to about metric head space. `placement` is the small similarity that remains; in the
end it is folded into `head_from_world`. For a static avatar it carries all placement, and `rotation` and `translation`
stay zero; over time these two carry the motion, and of the placement only the scale may move (`moving_parts`).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from flame_fitting.fit.weight_config import PriorConfig
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import rotation_matrix

JAW_SHUT = -0.02
"""Least opening of the jaw, rad: it does not close further than shut."""
_AT_ONCE = 8
"""Timesteps in a batch."""
EYELIDS = (0.0, 1.2)
"""Bounds of an eyelid: open as on the template; shut (1), of eyes that are wider open than the template's."""
VERGENCE = 0.05
"""Prior of the difference of the two eyes, one standard deviation, rad."""


@dataclass(frozen=True)
class Part:
    """Coefficients of a parameter that move together."""

    name: str
    group: str
    """Group of the options (`optimizable_params`) that moves it."""
    rate: str
    """Field of the options' `LearningRates`."""
    unit: str
    """rad, m, log (natural logarithm of a factor), sigma (the model's own standard deviations) or share (of what shuts
    an eye)."""
    start: int = 0
    stop: int | None = None
    """Coefficients of the parameter, along its last dimension."""
    moves: Literal["always", "static", "sequence", "uncalibrated"] = "always"
    """Gauge: whether it moves at one timestep only, at several only, or where the cameras are not known."""
    prior: str | None = None
    """Field of the options' `PriorConfig`: standard deviation of its Gaussian prior around 0."""
    prior_factors: tuple[float, ...] = (1.0,)
    """What that is multiplied by, for all coefficients or for each."""
    least: tuple[float, ...] = ()
    """Least value of each coefficient, where there is one."""
    most: tuple[float, ...] = ()
    """The same of the greatest."""
    stretched: bool = False
    """Whether it moves the head's points by so much: lengths of head space, which the scale stretches."""
    change: str | None = None
    """Field of the options' `PriorConfig`: standard deviation of its change from a timestep to the next."""

    @property
    def span(self) -> slice:
        """Its coefficients."""
        return slice(self.start, self.stop)

    def prior_sigmas(self, prior: PriorConfig) -> tuple[float, ...]:
        """Standard deviation of all coefficients (1) or of each; none without a prior."""
        if self.prior is None:
            return ()
        return tuple(getattr(prior, self.prior) * factor for factor in self.prior_factors)

    def change_sigma(self, prior: PriorConfig) -> float | None:
        """Standard deviation of a change, in its unit; None where timesteps are independent."""
        value: float | None = None if self.change is None else getattr(prior, self.change)
        return value


@dataclass(frozen=True)
class Parameter:
    """One row of the specification."""

    name: str
    role: Literal["identity", "frame", "camera"]
    """Whether all timesteps share it, each has its own, or each camera."""
    size: tuple[int | str, ...]
    """Dimensions without that of the timesteps; a word is a field of the head model."""
    parts: tuple[Part, ...]
    optional: Literal["", "by_head", "by_stage"] = ""
    """Whether a fit may be without it, and what decides: the head model, whose size for it is 0, or a stage that moves
    it, without which it is a tensor with no rows."""

    def dims(self, head: HeadModel, timesteps: int) -> tuple[int, ...]:
        """Shape of the tensor, of an optional one where there is one."""
        own = tuple(getattr(head, n) if isinstance(n, str) else n for n in self.size)
        return (timesteps, *own) if self.role == "frame" else own

    @property
    def unit(self) -> str:
        """Of all its coefficients, or of each part's."""
        units = dict.fromkeys(part.unit for part in self.parts)
        return ", ".join(units) if len(units) == 1 else ", ".join(f"{part.name}: {part.unit}" for part in self.parts)


PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        "placement",
        "identity",
        (7,),
        (
            Part("placement_rotation", "pose", "rotation", "rad", 0, 3, moves="static"),
            Part("placement_translation", "pose", "translation", "m", 3, 6, moves="static"),
            # a face alone fixes the scale to a few percent: the prior is around the landmarks' first estimate
            Part("placement_scale", "scale", "scale", "log", 6, 7, prior="log_scale"),
        ),
    ),
    Parameter(
        "log_focal",
        "camera",
        (1,),
        (Part("log_focal", "cam", "camera", "log", moves="uncalibrated", prior="log_focal"),),
    ),
    Parameter("shape", "identity", ("n_shape",), (Part("shape", "shape", "shape", "sigma", prior="shape"),)),
    Parameter(
        "expr",
        "frame",
        ("n_expr",),
        (Part("expr", "expr", "expr", "sigma", prior="expr", stretched=True, change="expr_change"),),
    ),
    Parameter(
        "eyelids",  # left, right
        "frame",
        ("n_eyelids",),
        (
            Part(
                *("eyelids", "expr", "eyelids", "share"),
                prior="eyelids",
                least=EYELIDS[:1] * 2,
                most=EYELIDS[1:] * 2,
                change="eyelids_change",
            ),
        ),
        optional="by_head",
    ),
    Parameter(
        "rotation",
        "frame",
        (3,),
        (Part("rotation", "pose", "rotation", "rad", moves="sequence", change="rotation_change"),),
    ),
    Parameter(
        "translation",
        "frame",
        (3,),
        (
            Part(
                *("translation", "pose", "translation", "m"),
                moves="sequence",
                stretched=True,
                change="translation_change",
            ),
        ),
    ),
    Parameter(
        "neck_pose",
        "frame",
        (3,),
        (Part("neck_pose", "joints", "neck", "rad", prior="neck", change="neck_change"),),
    ),
    Parameter(
        "jaw_pose",
        "frame",
        (3,),
        (
            Part(
                *("jaw_pose", "joints", "jaw", "rad"),
                prior="jaw",
                prior_factors=(1.0, 1 / 3, 1 / 10),  # opening; sideways; jaws hardly roll
                least=(JAW_SHUT, -np.inf, -np.inf),
                change="jaw_change",
            ),
        ),
    ),
    Parameter(
        "eyes_pose",
        "frame",
        (6,),
        (Part("eyes_pose", "joints", "eyes", "rad", prior="eyes", change="eyes_change"),),
    ),
    Parameter(
        "static_offset",
        "identity",
        (1, "n_vertices", 3),
        (Part("static_offset", "static_offset", "static_offset", "m"),),
    ),
    Parameter(
        "dynamic_offset",
        "frame",
        ("n_vertices", 3),
        (Part("dynamic_offset", "dynamic_offset", "dynamic_offset", "m", moves="sequence"),),
        optional="by_stage",
    ),
)
"""All parameters. Texture and light are no parameters of the head (see the stages' state)."""

POSES = {p.name: int(p.size[0]) for p in PARAMETERS if p.role == "frame" and isinstance(p.size[0], int)}
"""Parameters of every timestep whose size no head model decides, and their number of coefficients."""

PARAMETER_KEYS = tuple(p.name for p in PARAMETERS if p.name not in ("placement", "log_focal") and not p.optional)
"""What a fit's file holds: the placement is folded into `head_from_world`, the focal length is that of the cameras."""
OPTIONAL_KEYS = tuple(p.name for p in PARAMETERS if p.optional)
"""What it holds beside, where the fit has it."""


def moving_parts(
    groups: Collection[str], is_sequence: bool, joints: Collection[str], calibrated: bool = True
) -> list[Part]:
    """What moves where `groups` of the options are free; of the group `joints` only those named.

    The one place that settles the gauge: placement carries a static avatar, rotation and translation carry a sequence.
    """
    allowed = {"always", "sequence" if is_sequence else "static"} | (set() if calibrated else {"uncalibrated"})
    parts = [part for parameter in PARAMETERS for part in parameter.parts if part.group in groups]
    return [p for p in parts if p.moves in allowed and (p.group != "joints" or p.name in joints)]


@dataclass
class FitParameters:
    """One fit's parameters, as `PARAMETERS` lists them; all tensors share a dtype and a device."""

    placement: Float[Tensor, "7"]
    """Axis-angle (3, rad), translation (3, m) and log scale: reference frame from head space."""
    log_focal: Float[Tensor, "1"]
    """Logarithm of the focal length over the assumed one, of all cameras; 0 where these are known."""
    shape: Float[Tensor, " S"]
    expr: Float[Tensor, "T E"]
    eyelids: Float[Tensor, "T L"]
    """L is 2, left and right, or 0 of a head model without (see `head.eyelids`)."""
    rotation: Float[Tensor, "T 3"]
    translation: Float[Tensor, "T 3"]
    neck_pose: Float[Tensor, "T 3"]
    jaw_pose: Float[Tensor, "T 3"]
    eyes_pose: Float[Tensor, "T 6"]
    static_offset: Float[Tensor, "1 V 3"]
    dynamic_offset: Float[Tensor, "T D 3"]
    """Added to the static offsets at each timestep; D is V, or 0 where there are none."""

    @classmethod
    def neutral(cls, head: HeadModel, timesteps: int = 1, dtype: torch.dtype = torch.float64) -> "FitParameters":
        """The template, placed by the identity; without what is optional."""
        device = head.v_template.device
        sizes = {p.name: p.dims(head, timesteps) for p in PARAMETERS}
        sizes |= {p.name: (timesteps, 0, *sizes[p.name][2:]) for p in PARAMETERS if p.optional == "by_stage"}
        return cls(**{name: torch.zeros(size, dtype=dtype, device=device) for name, size in sizes.items()})

    @property
    def moves_vertices(self) -> bool:
        """Whether there are dynamic offsets."""
        return self.dynamic_offset.shape[1] > 0

    def with_dynamic_offset(self) -> "FitParameters":
        """With dynamic offsets, of 0 where there were none."""
        if self.moves_vertices:
            return self
        return replace(self, dynamic_offset=self.static_offset.new_zeros(self.timesteps, *self.static_offset.shape[1:]))

    def without_dynamic_offset(self) -> "FitParameters":
        """Without dynamic offsets."""
        return replace(self, dynamic_offset=self.dynamic_offset[:, :0])

    def with_eyelids(self, count: int) -> "FitParameters":
        """With so many eyelids (0 or 2), open where there were none."""
        if self.eyelids.shape[1] == count:
            return self
        return replace(self, eyelids=self.expr.new_zeros(self.timesteps, count))

    def at_rest(self) -> "FitParameters":
        """The same heads, static offsets taking over what dynamic ones mostly are: their median over time."""
        if not self.moves_vertices:
            return self
        stays = self.dynamic_offset.quantile(0.5, dim=0, keepdim=True)
        static, dynamic = self.static_offset + stays, self.dynamic_offset - stays
        return replace(self, static_offset=static, dynamic_offset=dynamic)

    @property
    def offset(self) -> Float[Tensor, "T1 V 3"]:
        """All offsets, static and dynamic; T1 is T, or 1 where there are no dynamic ones."""
        return self.static_offset + self.dynamic_offset if self.moves_vertices else self.static_offset

    def items(self) -> dict[str, Tensor]:
        """Name to tensor."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def clone(self) -> "FitParameters":
        """A detached copy."""
        return replace(self, **{name: value.detach().clone() for name, value in self.items().items()})

    def to(self, *args: object, **options: object) -> "FitParameters":
        """All tensors moved or cast as `Tensor.to` does."""
        return replace(self, **{name: value.to(*args, **options) for name, value in self.items().items()})  # type: ignore[call-overload]

    @property
    def timesteps(self) -> int:
        """T."""
        return self.expr.shape[0]

    def of_frames(self, rows: Sequence[int]) -> "FitParameters":
        """Those of some timesteps, with all that these share; a copy."""
        own = {p.name: getattr(self, p.name)[list(rows)] for p in PARAMETERS if p.role == "frame"}
        return replace(self, **own).clone()

    def with_frames(self, rows: Sequence[int], found: "FitParameters") -> "FitParameters":
        """With those of some timesteps, and all that timesteps share, from what was `found` for these timesteps."""
        out = self.clone()
        for parameter in PARAMETERS:
            value = getattr(found, parameter.name).detach().to(getattr(out, parameter.name))
            if parameter.role == "frame":
                getattr(out, parameter.name)[list(rows)] = value
            else:
                setattr(out, parameter.name, value.clone())
        return out

    def head_vertices(self, head: HeadModel) -> Float[Tensor, "T V 3"]:
        """Posed vertices in head space, metres."""
        rest = {name: value for name, value in self.items().items() if name in (*PARAMETER_KEYS, "eyelids")}
        return head(**rest | {"static_offset": self.offset}).vertices

    def vertices(self, head: HeadModel) -> Float[Tensor, "T V 3"]:
        """Posed vertices in the reference frame, metres."""
        return place(self.placement, self.head_vertices(head))

    def batches(self) -> Iterator["FitParameters"]:
        """A few timesteps at a time, in order: what is posed of many must not all be held at once."""
        if self.timesteps <= _AT_ONCE:
            yield self
            return
        for start in range(0, self.timesteps, _AT_ONCE):
            yield self.of_frames(range(start, min(start + _AT_ONCE, self.timesteps)))


def in_metric_world(head: HeadModel, parameters: FitParameters, head_from_world: np.ndarray) -> FitParameters:
    """The same head where head space is the world itself: rotation and translation take over a rigid motion.

    `head_from_world` (4, 4) has the scale 1; the placement is left at the identity.
    """
    inverse = torch.as_tensor(np.linalg.inv(head_from_world)).to(parameters.rotation)
    turn, shift = inverse[:3, :3], inverse[:3, 3]
    # R (x - joint) + joint + translation, then turned and shifted
    joint = root_joints(head, parameters)
    turned = turn @ rotation_matrix(parameters.rotation)
    rotation = torch.as_tensor(Rotation.from_matrix(turned.cpu().numpy()).as_rotvec()).to(parameters.rotation)
    translation = (joint + parameters.translation) @ turn.T + shift - joint
    placement = torch.zeros_like(parameters.placement)
    return replace(parameters, rotation=rotation, translation=translation, placement=placement)


def root_joints(head: HeadModel, parameters: FitParameters) -> Float[Tensor, "T 3"]:
    """What `rotation` turns the head about at each timestep: the root joint without rotation and translation."""
    own = {name: getattr(parameters, name) for name in ("expr", *POSES) if name not in ("rotation", "translation")}
    return head(shape=parameters.shape, static_offset=parameters.offset, **own).joints[:, 0]


def with_frames(
    values: Mapping[str, np.ndarray], rows: Sequence[int], found: Mapping[str, np.ndarray], timesteps: int
) -> dict[str, np.ndarray]:
    """Arrays by the names of parameters, with those of some timesteps from what was `found` for these.

    As `FitParameters.with_frames`; of timesteps that nothing was found for, NaN.
    """
    out = dict(values)
    for parameter in PARAMETERS:
        new = found.get(parameter.name)
        if new is None:
            continue
        if parameter.role == "frame":
            shape = (timesteps, *new.shape[1:])
            old = out.get(parameter.name)
            array = np.full(shape, np.nan) if old is None or old.shape != shape else old.copy()
            array[list(rows)] = new
            new = array
        out[parameter.name] = new
    return out


def place(placement: Float[Tensor, "7"], points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Applies the similarity `placement` to points."""
    return placement[6].exp() * points @ rotation_matrix(placement[:3]).T + placement[3:6]


def placement_matrix(placement: Float[Tensor, "7"]) -> np.ndarray:
    """`placement` as a 4x4 similarity."""
    out = np.eye(4)
    out[:3, :3] = (placement[6].exp() * rotation_matrix(placement[:3])).detach().cpu().numpy()
    out[:3, 3] = placement[3:6].detach().cpu().numpy()
    return out
