"""Pictures of a head model with known lids, lips and gaze, as a detector sees them: what evidence is calibrated on."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy import ndarray

from flame_fitting.avatar.head_calibration import (
    detector_input,
    head_frame,
    painted_avatar,
    painted_colors,
    turned_light,
)
from flame_fitting.avatar.head_paints import drawn_paints
from flame_fitting.avatar.view_planning import head_cameras
from flame_fitting.capture.camera import intrinsics_from_fov
from flame_fitting.head.apertures import LID_COLUMNS, Apertures, find_apertures, gaze_angles
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.detector import LandmarkDetector
from flame_fitting.landmarks.evidence_fit import Samples


@dataclass(frozen=True)
class EvidencePictures:
    """How many pictures, of what. Angles in degrees."""

    identities: int = 12
    expressions: int = 2
    """Of each identity."""
    views: int = 2
    """Of each expression: the first one nearly from the front."""
    size: int = 512
    """Side of a picture, px."""
    shape_sigma: float = 0.9
    expr_sigma: float = 0.5
    yaw: float = 50.0
    """Largest angle of a camera around the head."""
    pitch: float = 20.0
    gaze: tuple[float, float] = (25.0, 15.0)
    """Largest yaw and pitch of the eyes."""
    jaw: float = 17.0
    """Widest opening of the jaw."""
    paints: int = 4
    plain_paints: int = 2
    """Beside these, of a model that has a texture: colours of vertices, as models without one get."""
    seed: int = 201
    angles: tuple[tuple[float, float], ...] = ()
    """Yaw and pitch of the cameras, from as far as captures look, instead of `views` drawn ones."""


@dataclass(frozen=True, eq=False)
class HeadPose:
    """Parameters of one head, as arrays without time."""

    shape: ndarray
    expr: ndarray
    jaw_pose: ndarray
    eyes_pose: ndarray
    offsets: ndarray | None = None
    """(V, 3) m, static."""
    eyelids: ndarray = field(default_factory=lambda: np.zeros(0))
    """Of a head model that has some (L,)."""


def blink_direction(head: HeadModel, apertures: Apertures, ridge: float = 1e-7) -> tuple[ndarray, ndarray]:
    """Smallest expression coefficients (E,) that shut the subject's right and left eye, to first order."""

    def lids(expr: torch.Tensor) -> torch.Tensor:
        return apertures.gaps(head(expr=expr[None]).vertices, head.faces)[0, : 2 * LID_COLUMNS]

    neutral = torch.zeros(head.n_expr, dtype=head.v_template.dtype)
    slope = torch.autograd.functional.jacobian(lids, neutral)
    open_by = lids(neutral)
    out = []
    for eye in range(2):
        wanted = torch.zeros_like(open_by)
        columns = slice(eye * LID_COLUMNS, (eye + 1) * LID_COLUMNS)
        wanted[columns] = -open_by[columns]
        inverse = torch.linalg.solve(slope @ slope.T + ridge * torch.eye(len(open_by), dtype=slope.dtype), wanted)
        out.append((slope.T @ inverse).numpy())
    return out[0], out[1]


def draw_poses(head: HeadModel, apertures: Apertures, config: EvidencePictures) -> Iterator[tuple[int, HeadPose]]:
    """Random heads by identity: expressions, eyes half and fully shut, open mouths, eyes that look about."""
    rng = np.random.default_rng(config.seed)
    blinks = None if head.n_eyelids else blink_direction(head, apertures)
    used = min(head.n_shape, 60)
    for identity in range(config.identities):
        shape = config.shape_sigma * np.clip(rng.standard_normal(used), -2.5, 2.5)
        for _ in range(config.expressions):
            expr = config.expr_sigma * np.clip(rng.standard_normal(head.n_expr), -2.5, 2.5)
            shut = np.full(2, rng.uniform(-0.2, 1.1) if rng.random() < 0.6 else 0.0)
            if rng.random() < 0.15:
                shut[rng.integers(2)] = rng.uniform(0, 1)
            if blinks is not None:
                expr = expr + shut[0] * blinks[0] + shut[1] * blinks[1]
            jaw = np.radians(rng.uniform(0, config.jaw)) if rng.random() < 0.6 else 0.02
            yaw, pitch = np.radians(rng.uniform(-1, 1, 2) * config.gaze)
            # both eyes look at one thing, up to a squint of two degrees
            apart = np.radians(rng.normal(0, 2.0))
            eyes = np.array([pitch, yaw + apart, 0.0, pitch, yaw - apart, 0.0])
            eyelids = shut[[1, 0][: head.n_eyelids]]  # left first
            yield identity, HeadPose(shape, expr, np.array([jaw, 0.0, 0.0]), eyes, eyelids=eyelids)


def posed(head: HeadModel, pose: HeadPose) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertices (1, V, 3) and eyes (1, 6)."""
    kind = head.v_template.dtype
    arrays = {name: torch.as_tensor(v, dtype=kind) for name, v in pose.__dict__.items() if v is not None}
    offsets = arrays.get("offsets")
    with torch.no_grad():
        out = head(
            shape=arrays["shape"],
            expr=arrays["expr"][None],
            jaw_pose=arrays["jaw_pose"][None],
            eyes_pose=arrays["eyes_pose"][None],
            static_offset=None if offsets is None else offsets[None],
            eyelids=arrays["eyelids"][None],
        )
    return out.vertices, arrays["eyes_pose"][None]


def truth_of(head: HeadModel, apertures: Apertures, pose: HeadPose) -> ndarray:
    """(Q,) gaps in mm, then gaze in degrees."""
    vertices, eyes = posed(head, pose)
    # lids that have passed each other are shut, no more
    gaps = np.maximum(1000 * apertures.gaps(vertices, head.faces)[0].numpy(), 0.0)
    return np.concatenate([gaps, np.degrees(gaze_angles(eyes)[0].numpy())])


def paints_of(head: HeadModel, embedding: LandmarkEmbedding, config: EvidencePictures) -> list[ndarray]:
    """Textures (S, S, 3) and vertex colours (V, 3) of a model that has a texture, else the latter, of other skins, lips
    and irises."""
    if head.texture is None or not head.has_uv:
        return drawn_paints(head, painted_colors(head, embedding), config.paints, config.seed)
    others = np.random.default_rng([config.seed, 4]).spawn(config.plain_paints)
    return drawn_paints(head, None, config.paints, config.seed) + [plain_paint(head, embedding, rng) for rng in others]


def plain_paint(head: HeadModel, embedding: LandmarkEmbedding, rng: np.random.Generator) -> ndarray:
    """(V, 3) colours 0..1 of the kind that models without a texture get, of another skin and other eyes."""
    colors = painted_colors(head, embedding)
    eyes = (head.weights[:, 3:5] > 0.5).any(1).cpu().numpy()
    skin, iris = rng.uniform(0.25, 1.15) * rng.uniform(0.9, 1.1, 3), rng.uniform(0.4, 2.2) * rng.uniform(0.7, 1.4, 3)
    dark = eyes & (colors.mean(1) < 0.5)
    colors[~eyes] *= skin
    colors[dark] *= iris
    colors[eyes & ~dark] *= rng.uniform(0.75, 1.05)
    return np.clip(colors, 0, 1)


@dataclass(frozen=True, eq=False)
class ShownHead:
    """A head in one picture, as the detector saw it."""

    identity: int
    number: int
    """Of the expression, over all identities."""
    pose: HeadPose
    vertices: torch.Tensor
    """(1, V, 3) m."""
    K: ndarray
    camera: ndarray
    """World to camera (4, 4)."""
    landmarks: ndarray
    """(N, 3) px and confidence."""
    scores: ndarray


def shown_heads(
    head: HeadModel,
    detector: LandmarkDetector,
    embedding: LandmarkEmbedding,
    config: EvidencePictures,
    progress: Callable[[Sequence], Iterable] = list,
    poses: Sequence[tuple[int, HeadPose]] = (),
) -> Iterator[ShownHead]:
    """Shows the head to the detector; pictures in which it finds no face are left out.

    `poses` are identities and what is shown of them; none: random ones (`draw_poses`).
    """
    rng = np.random.default_rng([config.seed, 2])
    frame, paints = head_frame(head), paints_of(head, embedding, config)
    poses = poses or list(draw_poses(head, find_apertures(head), config))
    for number, (identity, pose) in enumerate(progress(poses)):
        vertices = posed(head, pose)[0]
        avatar = painted_avatar(head, vertices[0].numpy().astype(np.float64), paints[identity % len(paints)])
        if config.angles:
            aims, fov, near = np.array(config.angles), 25.0, 1.0
        else:
            aims = rng.uniform(-1, 1, (config.views, 2)) * (config.yaw, config.pitch)
            aims[0] *= 0.3
            fov, near = rng.uniform(12, 30), rng.uniform(0.62, 0.9)
        K = np.tile(intrinsics_from_fov(fov, config.size, config.size), (len(aims), 1, 1))
        cameras = head_cameras(aims, np.eye(4), frame, fov, near)
        lit = rng.random() < 0.7
        turn = turned_light(np.radians(rng.uniform(-70, 70))) if lit else None
        views = avatar.draw(
            K, cameras, config.size, config.size, "lit" if lit else "unlit", light_rotation=turn, outputs=("image",)
        )
        assert views.image is not None
        for view, seen in enumerate(detector.look(detector_input(views.image))):
            if len(seen.landmarks):
                yield ShownHead(
                    identity, number, pose, vertices, K[view], cameras[view], seen.landmarks[0], seen.scores[0]
                )


def sample(
    head: HeadModel,
    detector: LandmarkDetector,
    embedding: LandmarkEmbedding,
    config: EvidencePictures | None = None,
    progress: Callable[[Sequence], Iterable] = list,
) -> Samples:
    """What the detector sees, and what is true."""
    apertures = find_apertures(head)
    shown = list(shown_heads(head, detector, embedding, config or EvidencePictures(), progress))
    return Samples(
        np.array([one.landmarks for one in shown]),
        np.array([one.scores for one in shown]),
        np.array([one.K for one in shown]),
        np.array([truth_of(head, apertures, one.pose) for one in shown]),
        np.array([(one.identity, one.number) for one in shown], dtype=int),
    )
