"""Persons of known truth with several expressions each: the same identity, offsets, triangles and paint in all of them.

Unlike the cases of `cases`, offsets are not made orthogonal to the model's components, and what moves a face is not
only in the expression components' span: actions are shown with a residual of their own, lids slide over the eyeballs,
and shut lids shut along their whole length.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.files import atomic_write

from .cases import TEXTURE_SIZE, Case, Places, Subject, build_subject

if TYPE_CHECKING:
    from flame_fitting.avatar.demo_remesh import Remeshed
    from flame_fitting.head.apertures import Apertures
    from flame_fitting.head.model import HeadModel

PERSONS = (7101, 7102, 7103, 7104, 7105)
"""Seeds, on which no default was tuned."""
SHAPE_SIGMA, OFFSET_MM = 0.9, 2.0
RESIDUAL, RESIDUAL_WAVES = 0.1, (0.03, 0.08)
"""What of an action the components lack: its size against the action's, and its wavelengths, metres."""
LID_GAP = 0.0001
"""Metres that lids lie above the eyeballs, at least."""
SHUT_GAP = 0.00003
"""Metres between the rims of shut lids."""
MOST_BLINK = 2.5
"""Amount of the action of a blink at which its lids are shut, at most."""
TRUTH = "expression.npz"


@dataclass(frozen=True)
class Expression:
    """What a face shows. Sides are the subject's left; persons of even seeds show them on the right."""

    name: str
    actions: dict[str, float]
    """Amounts by ARKit's names."""
    jaw: float = 0.0
    """Radians."""
    shut: tuple[str, ...] = ()
    """Eyes that are shut."""


EXPRESSIONS = (
    Expression("rest", {}),
    Expression("smile", {"mouthSmileLeft": 0.75, "cheekSquintLeft": 0.5, "mouthDimpleLeft": 0.3}),
    Expression("frown", {"browDownLeft": 1.0, "browDownRight": 1.0, "mouthFrownLeft": 0.8, "mouthFrownRight": 0.8}),
    Expression("blink", {}, shut=("left", "right")),
    Expression("one_lid", {}, shut=("left",)),
    Expression("jaw_open", {}, jaw=0.25),
    Expression("brow_up", {"browOuterUpLeft": 1.5}),
    Expression("pout", {"mouthPucker": 0.9, "mouthShrugLower": 0.5}),
)


@dataclass(frozen=True)
class ExpressionCase:
    """One capture of one expression of a person."""

    person: int
    expression: Expression
    size: int = 512
    views: int = 16
    synthetic: bool = False
    """Landmarks are the truth's with noise, without evidence; else a detector's."""

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"p{self.person}_{self.expression.name}" + ("_synthetic" if self.synthetic else "")

    @property
    def case(self) -> Case:
        """What `cases` takes it for."""
        landmarks = "synthetic" if self.synthetic else "detected"
        return Case(self.name, "expressions", self.person, views=self.views, size=self.size, landmarks=landmarks)  # type: ignore[arg-type]


def expression_cases(persons: int, names: list[str] | None = None, **options: object) -> list[ExpressionCase]:
    """The bench: every expression (or those called `names`) of the first `persons`."""
    chosen = [one for one in EXPRESSIONS if names is None or one.name in names]
    return [ExpressionCase(seed, one, **options) for seed in PERSONS[:persons] for one in chosen]  # type: ignore[arg-type]


@dataclass(eq=False)
class Person:
    """Who shows the expressions. Head space, metres."""

    seed: int
    head: "HeadModel"
    shape: Float[ndarray, " S"]
    offsets: Float[ndarray, "V 3"]
    """Static: with lids kept out of the eyeballs."""
    neutral: Float[ndarray, "V 3"]
    world_from_head: Float[ndarray, "4 4"]
    unit: str
    mm_per_unit: float
    surface: "Remeshed"
    """Other triangles, of the neutral head."""
    picture: ndarray


@dataclass(eq=False)
class Face:
    """An expression of a person, posed."""

    expr: Float[ndarray, "1 E"]
    moved: Float[ndarray, "V 3"]
    """What the expression adds to the neutral head before it is posed; `expr` alone adds most of it."""
    poses: dict[str, ndarray]
    vertices: Float[ndarray, "V 3"]
    """Head space, posed."""


@lru_cache(maxsize=2)
def person(seed: int, texture_size: int = TEXTURE_SIZE) -> Person:
    """Draws a person."""
    from flame_fitting.avatar.demo_head import UNITS, _random_axes, _tilt, outside_offsets
    from flame_fitting.avatar.demo_remesh import remesh
    from flame_fitting.avatar.demo_texture import paint_detail
    from flame_fitting.capture.similarity import similarity_matrix
    from flame_fitting.head.loading import load_head

    from .eyes import lids_outside

    head = load_head("open")
    for_shape, for_offsets, for_place, for_mesh, for_skin = np.random.default_rng(seed).spawn(5)
    shape = SHAPE_SIGMA * for_shape.standard_normal(head.n_shape)
    offsets = outside_offsets(head, 1e-3 * OFFSET_MM, for_offsets, leading=(0, 0))
    bare = _posed(head, shape, offsets)
    offsets = offsets + lids_outside(head, bare, LID_GAP) - bare
    neutral = _posed(head, shape, offsets)
    unit, per_metre = UNITS[for_place.integers(len(UNITS))]
    turn = _random_axes(for_place) @ _tilt(for_place)
    place = similarity_matrix(per_metre, turn, for_place.uniform(-1.5, 1.5, 3) * per_metre)
    keep = head.region_mask("ears", "lips_tight", "lip_inside", "eyelids").numpy()
    uv, uv_faces = head.uv.numpy().astype(np.float64), head.uv_faces.numpy()
    surface = remesh(neutral, head.faces.numpy(), uv, uv_faces, for_mesh, keep)
    picture = paint_detail(head, texture_size, for_skin)
    return Person(seed, head, shape, offsets, neutral, place, unit, 1000 / per_metre, surface, picture)


def face_of(who: Person, expression: Expression) -> Face:
    """Poses a person."""
    from flame_fitting.head.actions import actions_of
    from flame_fitting.head.apertures import find_apertures

    from .eyes import lids_outside

    head, actions = who.head, actions_of(who.head)
    assert actions is not None
    number = next(k for k, one in enumerate(EXPRESSIONS) if one.name == expression.name)
    rng = np.random.default_rng([who.seed, number])
    other_side = who.seed % 2 == 0
    amounts = {_sided(name, other_side): amount for name, amount in expression.actions.items()}
    shut = [_sided(side, other_side) for side in expression.shut]
    dirs = head.exprdirs.numpy().astype(np.float64)
    expr = actions.expression(amounts)
    moved = with_residual(who, dirs @ expr, rng)
    apertures = find_apertures(head)
    for side in shut:
        blink = actions.expression({f"eyeBlink{side.capitalize()}": 1.0})
        closing = with_residual(who, dirs @ blink, rng)
        amount = shut_amounts(who, moved, closing, side, apertures)
        moved = moved + amount[:, None] * closing
        expr = expr + float(np.median(amount)) * blink
    moved = lids_outside(head, who.neutral + moved, LID_GAP) - who.neutral
    gaze = rng.normal(0, [0.05, 0.10]) if not shut else np.zeros(2)
    poses = {
        "neck_pose": rng.normal(0, 0.03, (1, 3)),
        "jaw_pose": np.array([[expression.jaw, 0.0, 0.0]]),
        "eyes_pose": np.array([[gaze[0], gaze[1], 0.0, gaze[0], gaze[1], 0.0]]),
    }
    return Face(expr[None], moved, poses, _posed(head, who.shape, who.offsets + moved, **poses))


def _sided(name: str, other: bool) -> str:
    """The name of the same on the other side of the face, if asked for."""
    if not other:
        return name
    pairs = (("Left", "Right"), ("Right", "Left"), ("left", "right"), ("right", "left"))
    return next((name.replace(a, b) for a, b in pairs if a in name), name)


def with_residual(who: Person, moved: Float[ndarray, "V 3"], rng: np.random.Generator) -> Float[ndarray, "V 3"]:
    """An action with what the components have not of it: smooth, and where it moves something."""
    if not moved.any():
        return moved
    template = who.head.v_template.numpy().astype(np.float64)
    direction = rng.standard_normal((12, 3))
    length = rng.uniform(*RESIDUAL_WAVES, 12) * np.linalg.norm(direction, axis=1)
    waves = np.sin(template @ (2 * np.pi * direction / length[:, None]).T + rng.uniform(0, 2 * np.pi, 12))
    field = waves @ rng.standard_normal((12, 3)) / np.sqrt(18)
    return moved + RESIDUAL * np.linalg.norm(moved, axis=1, keepdims=True) * field


def shut_amounts(
    who: Person, moved: Float[ndarray, "V 3"], closing: Float[ndarray, "V 3"], side: str, apertures: "Apertures"
) -> Float[ndarray, " V"]:
    """How much of `closing` each point needs for the lids of one eye to shut, beside what `moved` does.

    It changes along the lids, so that they meet everywhere.
    """
    import torch

    from flame_fitting.head.apertures import GAP_NAMES

    from .eyes import lids_outside

    head = who.head
    columns = [k for k, name in enumerate(GAP_NAMES) if name.startswith(f"{side}_lid")]
    template = head.v_template.numpy().astype(np.float64)
    places = apertures.points(torch.as_tensor(template)[None], head.faces)[0].mean(0)[columns, 0].numpy()
    order = np.argsort(places)

    def along(amounts: ndarray) -> ndarray:
        return np.interp(template[:, 0], places[order], amounts[order])

    def gaps(amounts: ndarray) -> ndarray:
        shown = lids_outside(head, who.neutral + moved + along(amounts)[:, None] * closing, LID_GAP)
        return apertures.gaps(torch.as_tensor(shown)[None], head.faces)[0, columns].numpy()

    low, high = np.zeros(len(columns)), np.full(len(columns), MOST_BLINK)
    for _ in range(24):
        middle = 0.5 * (low + high)
        still_open = gaps(middle) > SHUT_GAP
        low, high = np.where(still_open, middle, low), np.where(still_open, high, middle)
    return along(high)


def _posed(
    head: "HeadModel", shape: Float[ndarray, " S"], offsets: Float[ndarray, "V 3"], **poses: ndarray
) -> Float[ndarray, "V 3"]:
    """Exact to double precision."""
    import copy

    import torch

    tensors = {name: torch.as_tensor(value) for name, value in poses.items()}
    with torch.no_grad():
        model = copy.deepcopy(head).double()
        out = model(shape=torch.as_tensor(shape), static_offset=torch.as_tensor(offsets)[None], **tensors)
    return out.vertices[0].numpy()


def build(one: ExpressionCase, folder: Path, places: Places) -> None:
    """Writes the capture and the truth of a case, as `cases.build` does, and `avatar/expression.npz`.

    That holds, head space and metres: neutral (V, 3), without expression and pose; posed (V, 3), with both but the
    neck's; in the avatar's coordinates: neutral_world (V, 3), the neutral head where the neck holds the posed one.
    """
    from flame_fitting.avatar.demo_head import DemoHead
    from flame_fitting.avatar.demo_remesh import Remeshed
    from flame_fitting.capture.similarity import apply_similarity, invert_similarity

    who = person(one.person)
    face = face_of(who, one.expression)
    place = who.world_from_head
    turn = place[:3, :3] / np.cbrt(np.linalg.det(place[:3, :3]))
    world = apply_similarity(place, face.vertices)
    demo = DemoHead(
        shape=who.shape,
        expr=face.expr,
        neck_pose=face.poses["neck_pose"],
        jaw_pose=face.poses["jaw_pose"],
        eyes_pose=face.poses["eyes_pose"],
        static_offset=who.offsets[None],
        head_from_world=invert_similarity(place),
        vertices_world=world,
        unit=who.unit,
        mm_per_unit=who.mm_per_unit,
        up=turn[:, 1],
        forward=turn[:, 2],
    )
    mesh = who.surface
    corners = world[who.head.faces.numpy()[mesh.source_face]]
    carried = np.einsum("nk,nkc->nc", mesh.barycentric, corners)
    surface = Remeshed(carried, mesh.uv, mesh.faces, mesh.source_face, mesh.barycentric)
    build_subject(one.case, Subject(who.head, demo, surface, who.picture), folder, places)
    resting = {name: np.zeros_like(value) for name, value in face.poses.items()}
    neck, ahead = {"neck_pose": face.poses["neck_pose"]}, {"neck_pose": np.zeros((1, 3))}
    with atomic_write(folder / "avatar" / TRUTH) as temporary:
        np.savez_compressed(
            temporary,
            expression=np.array(one.expression.name),
            shut=np.array([_sided(side, who.seed % 2 == 0) for side in one.expression.shut], dtype="U5"),
            neutral=who.neutral,
            posed=_posed(who.head, who.shape, who.offsets + face.moved, **(face.poses | ahead)),
            neutral_world=apply_similarity(place, _posed(who.head, who.shape, who.offsets, **(resting | neck))),
        )
