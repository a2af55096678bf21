"""Writes a sequence of known truth: pictures in the layout that `track` reads, landmarks, the true track.

<folder>/sequence            the capture; landmarks2d/{exact,noisy,biased}.npz
<folder>/whole               monocular: the same with a head in the frames that are left out
<folder>/truth               the true track as a fit of this program
<folder>/embedding.npz       where the landmarks lie on the head
<folder>/made.json           what it was made from
"""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting import progress
from flame_fitting.avatar.view_planning import directions
from flame_fitting.capture.camera import centred_intrinsics, look_at, project
from flame_fitting.capture.layouts.monocular import resting_camera
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.files import atomic_write

from ..rig.sequences import picture_name, save_jpeg
from .cases import BY_NAME, Case, head_named, open_head
from .course import FREE_DISTANCE, make_course

if TYPE_CHECKING:
    from ..rig.course import Course
    from ..rig.subject import Subject

REVISION = 1
"""Counts up where the same seed gives another sequence."""
SHAPE_SIGMA, OFFSET_MM = 1.0, 1.5
NOISE_PX, NOISE_AT = 1.2, 512
"""Standard deviation of each coordinate of a landmark, px, in pictures of that height."""
BIAS_MM = 1.0
"""Length of each landmark's fixed bias in space."""
PICTURE_NOISE = 0.004
"""Standard deviation of the noise of pictures, sRGB."""
FOCAL_RANGE = (1.7, 3.0)
"""Of the cameras that are not known, in units of the longer side."""
YAW, PITCH = 50.0, 10.0
"""Degrees: the known cameras stand from side to side, in turn above and below."""
HELDOUT_YAW = 21.0
FOCAL = 2.4
"""Of the known cameras, in units of the picture's height; others stand so that they see the head as large."""
LANDMARKS = ("exact", "noisy", "biased")


@dataclass(frozen=True)
class Wanted:
    """What a sequence is made from."""

    case: str
    head: str
    seed: int = 0
    size: int = 512
    """px; pictures are square."""
    frames: int = 0
    """0: the case's own."""
    texture_size: int = 2048
    revision: int = field(default=REVISION)

    @property
    def kind(self) -> Case:
        """The case."""
        return BY_NAME[self.case]

    @property
    def count(self) -> int:
        """Timesteps."""
        return self.frames or self.kind.frames

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.head}_{self.case}_{self.count}x{self.size}_s{self.seed}"


@dataclass(eq=False)
class Cameras:
    """The views of every timestep."""

    K: Float[ndarray, "C 3 3"]
    world_to_camera: Float[ndarray, "C 4 4"]
    heldout: int
    """The last so many are not tracked from."""
    focal: float | None
    """In units of the longer side; None: the cameras are known."""


def made(wanted: Wanted, work: Path) -> Path:
    """The folder of a sequence below `work`; made now where it is missing."""
    folder = work / wanted.name
    record = folder / "made.json"
    if record.is_file() and json.loads(record.read_text()) == asdict(wanted):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make(wanted, folder)
    with atomic_write(record) as temporary:
        temporary.write_text(json.dumps(asdict(wanted)))
    return folder


def make(wanted: Wanted, folder: Path) -> None:
    """Draws the sequence into an empty folder."""
    from flame_fitting.avatar.head_calibration import head_frame

    from ..rig.subject import draw_subject
    from ..rig.tracks import studio_track, write_fit

    case, size = wanted.kind, wanted.size
    for_subject, for_rest = np.random.default_rng(wanted.seed).spawn(2)
    for_course, for_cameras, for_landmarks, for_pictures = np.random.default_rng(
        [int(for_rest.integers(2**32)), case.number]
    ).spawn(4)
    model, embedding = open_head(head_named(wanted.head))
    subject = draw_subject(model, embedding, for_subject, wanted.texture_size, SHAPE_SIGMA, OFFSET_MM)
    cameras = make_cameras(case, size, for_cameras)
    distance = FREE_DISTANCE * (1.0 if cameras.focal is None else cameras.focal / FOCAL)
    middle = np.array(head_frame(subject.head).center)
    course = make_course(case, wanted.count, subject.head.n_expr, middle, distance, for_course)
    points = write_pictures(wanted, folder, subject, course, cameras, for_pictures)
    write_landmarks(folder / "sequence", wanted, cameras, points, course.present, for_landmarks)
    write_fit(
        folder / "truth", subject, studio_track(subject, course, (size, size), cameras.focal), folder / "sequence"
    )
    embedding.save(folder / "embedding.npz")


def make_cameras(case: Case, size: int, rng: np.random.Generator) -> Cameras:
    """The cameras in the studio: around the origin, or one that nothing is known of."""
    if case.monocular:
        low, high = np.log(FOCAL_RANGE)
        focal = float(np.exp(rng.uniform(low, high)))
        return Cameras(centred_intrinsics(focal * size, size, size)[None], resting_camera()[None], 0, focal)
    fit = np.linspace(-YAW, YAW, case.cameras)
    yaw = np.concatenate([fit, np.linspace(-HELDOUT_YAW, HELDOUT_YAW, case.heldout)])
    pitch = np.concatenate([PITCH * (-1.0) ** np.arange(case.cameras), np.zeros(case.heldout)])
    eye = directions(np.stack([yaw, pitch], axis=1))
    K = centred_intrinsics(FOCAL * size, size, size)
    world_to_camera = look_at(FREE_DISTANCE * eye, np.zeros(3), [0, 1, 0])
    return Cameras(np.tile(K, (len(yaw), 1, 1)), world_to_camera, case.heldout, None)


@dataclass(eq=False)
class TruePoints:
    """iBUG-68 points in the studio."""

    exact: Float[ndarray, "T 68 3"]
    biased: Float[ndarray, "T 68 3"]


def write_pictures(
    wanted: Wanted,
    folder: Path,
    subject: "Subject",
    course: "Course",
    cameras: Cameras,
    rng: np.random.Generator,
) -> TruePoints:
    """Draws all timesteps; returns the points of their landmarks."""
    from contextlib import ExitStack

    from flame_fitting.capture.files import CaptureWriter

    case, size = wanted.kind, wanted.size
    bias = draw_bias(rng)
    exact, biased = [], []
    with ExitStack() as stack:
        bar = stack.enter_context(progress.Bar(wanted.count, wanted.name, "frame"))
        writer = None if case.monocular else stack.enter_context(CaptureWriter(folder / "sequence", force=True))
        for timestep in range(wanted.count):
            avatar, vertices = subject.avatar(course, timestep)
            exact.append(subject.points(vertices))
            biased.append(exact[-1] + moved_bias(subject, vertices, bias))
            drawn = avatar.draw(
                *(cameras.K, cameras.world_to_camera, size, size), "unlit", (1.0, 1.0, 1.0), outputs=("image", "alpha")
            )
            assert drawn.image is not None and drawn.alpha is not None
            for camera, (picture, alpha) in enumerate(zip(drawn.image, drawn.alpha, strict=True)):
                heldout = camera >= len(drawn.image) - cameras.heldout
                # one draw for each picture: what is left out changes no other
                noise = PICTURE_NOISE * rng.standard_normal(picture.shape)
                noisy = np.clip(picture + noise, 0, 1)
                if writer is None:
                    blank = course.blank[timestep]
                    _write_frame(folder / "whole", timestep, picture, alpha)
                    shown = (np.ones_like(picture), np.zeros_like(alpha)) if blank else (noisy, alpha)
                    _write_frame(folder / "sequence", timestep, *shown)
                    continue
                writer.add(
                    timestep=timestep,
                    camera=camera,
                    role="heldout" if heldout else "fit",
                    K=cameras.K[camera],
                    world_to_camera=cameras.world_to_camera[camera],
                    image=(picture if heldout else noisy).astype(np.float32),
                    alpha=alpha,
                )
            bar.advance()
    return TruePoints(np.stack(exact), np.stack(biased))


def draw_bias(rng: np.random.Generator) -> Float[ndarray, "68 3"]:
    """A fixed direction for each landmark, m, in the axes of its triangle."""
    direction = rng.standard_normal((68, 3))
    return 1e-3 * BIAS_MM * direction / np.linalg.norm(direction, axis=1, keepdims=True)


def moved_bias(
    subject: "Subject", vertices: Float[ndarray, "V 3"], bias: Float[ndarray, "68 3"]
) -> Float[ndarray, "68 3"]:
    """The bias where the skin is now: it turns with each landmark's triangle."""
    index = subject.embedding.face_index[subject.ibug68]
    a, b, c = vertices[subject.head.faces.numpy()[index]].transpose(1, 0, 2)
    along = (b - a) / np.linalg.norm(b - a, axis=1, keepdims=True)
    normal = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    axes = np.stack([along, np.cross(normal, along), normal], axis=1)
    return np.einsum("nk,nkc->nc", bias, axes)


def write_landmarks(
    capture: Path,
    wanted: Wanted,
    cameras: Cameras,
    points: TruePoints,
    present: ndarray,
    rng: np.random.Generator,
) -> None:
    """landmarks2d/<kind>.npz: all 68 points in every picture that is tracked from and shows the head."""
    count = len(cameras.K) - cameras.heldout
    noise = rng.standard_normal((wanted.count, len(cameras.K), 68, 2)) * NOISE_PX * wanted.size / NOISE_AT
    for name in LANDMARKS:
        space = points.biased if name == "biased" else points.exact
        pixels = np.stack(
            [project(space, K, w2c) for K, w2c in zip(cameras.K, cameras.world_to_camera, strict=True)], 1
        )
        found = np.full((*pixels.shape[:3], 3), np.nan, dtype=np.float32)
        shown = pixels[..., :2] + (0 if name == "exact" else noise)
        found[present, :count] = np.concatenate([shown, np.ones_like(shown[..., :1])], axis=-1)[present, :count]
        path = capture / "landmarks2d" / f"{name}.npz"
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as temporary:
            np.savez_compressed(temporary, landmarks=found, scheme="ibug68")


def _write_frame(folder: Path, timestep: int, picture: Float[ndarray, "3 H W"], alpha: Float[ndarray, "H W"]) -> None:
    from PIL import Image

    for name in ("images", "alpha_maps"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    stem = picture_name("", timestep)
    save_jpeg(folder / "images" / f"{stem}.jpg", to_uint8(picture.transpose(1, 2, 0)))
    Image.fromarray(to_uint8(alpha)).save(folder / "alpha_maps" / f"{stem}.png")
