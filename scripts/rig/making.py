"""Draws a talking head and writes its clips, true tracks and the truth."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from flame_fitting import progress
from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write
from flame_fitting.folders import staged_folder
from flame_fitting.manifest import Manifest

from . import colours, sequences
from .cameras import (
    MONOCULAR_FOCAL,
    RigCamera,
    aligned_from_world,
    calibrated_cameras,
    monocular_camera,
    world_from_studio,
)
from .colours import Picture
from .course import Absence, Course, check_frames, make_course
from .subject import Subject, make_subject, visible_landmarks
from .tracks import Track, studio_track, write_fit, write_run

SUBJECT, SEQUENCE, VIDEO = "074", "EMO-1", "talking"
CLIPS = ("nersemble", "nersemble_v2", "monocular")
OTHER_SIZE = 0.5
"""Of two of NeRSemble v2's cameras."""
OTHER_CAMERAS = (1, 3)
SEEN_POINTS = 30
"""A detector is taken to find a face that shows so many of the 68 landmarks."""
WHITE = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class RigConfig:
    """What is made."""

    output: Path
    frames: int = 24
    size: int = 256
    """Height of the pictures, px; the video is a square of it."""
    fps: float = 25.0
    seed: int = 0
    clips: tuple[str, ...] = CLIPS
    absent: Absence = "blank"
    """The frame without a face: the background alone, the head out of the picture, or none."""
    head: str = "open"
    texture_size: int = 512
    white: bool = False
    """Behind the head: white, or plates that differ by camera (the video's is one colour)."""
    videos: bool = True
    images: bool = True
    alpha_maps: bool = True
    landmarks: bool = False
    """True landmarks as `landmark2d/STAR` has them."""
    force: bool = False


@dataclass(eq=False)
class Clip:
    """One recording: its cameras, colours and files."""

    name: str
    cameras: list[RigCamera]
    """In the studio."""
    world_from_studio: Float[ndarray, "4 4"]
    sequence: Path
    """Folder of the pictures, below the output."""
    plates: list[Picture]
    """True colours."""
    recorded: list[Callable[[Picture], Picture]]
    """What each camera records of true colours."""
    writer: sequences.SequenceWriter
    landmarks: list[list[Float[ndarray, "68 2"]]] = field(default_factory=list)
    visible: list[list[Bool[ndarray, " 68"]]] = field(default_factory=list)


@dataclass(frozen=True)
class Rig:
    """Where everything is."""

    root: Path
    events: dict[str, int]
    """Timestep of `blink`, `open`, `turn` and `absent`."""

    def data_root(self, clip: str) -> Path:
        """VHAP's --data.root_folder."""
        return self.root / clip

    def sequence(self, clip: str) -> Path:
        """Folder of a clip's pictures."""
        return self.root / sequence_folder(clip)

    @property
    def video(self) -> Path:
        """The video of one camera."""
        return self.root / "monocular" / f"{VIDEO}.mp4"

    def fit(self, clip: str) -> Path:
        """The true track as a fit of this program."""
        return self.root / "fit" / clip

    def run(self, clip: str) -> Path:
        """The true track as VHAP's TRACK folder."""
        return next((self.root / "track" / clip).iterdir())

    def truth(self, clip: str) -> dict[str, ndarray]:
        """Arrays of truth.npz."""
        with np.load(self.root / "truth" / clip / "truth.npz", allow_pickle=False) as data:
            return dict(data)

    def true_picture(self, clip: str, timestep: int, camera: str) -> Picture:
        """A picture in true colours, one of `truth()["vertices_timestep"]`, (H, W, 3) 0..1."""
        from PIL import Image

        path = self.root / "truth" / clip / f"{sequences.picture_name(camera, timestep)}.png"
        return np.asarray(Image.open(path), dtype=np.float64) / 255


def sequence_folder(clip: str) -> Path:
    """Below the output."""
    if clip == "monocular":
        return Path(clip) / VIDEO
    return Path(clip) / SUBJECT / ("sequences" if clip == "nersemble_v2" else "") / SEQUENCE


def make_rig(config: RigConfig) -> Rig:
    """Writes everything into `config.output`; InputError where it cannot."""
    if unknown := [name for name in config.clips if name not in CLIPS]:
        raise InputError(f"--clips {' '.join(unknown)}: known are {', '.join(CLIPS)}.")
    check_frames(config.frames)
    for_subject, for_course, for_colours = np.random.default_rng(config.seed).spawn(3)
    cameras, monocular = calibrated_cameras(config.size), monocular_camera(config.size)
    subject = make_subject(config.head, for_subject, config.texture_size)
    course = make_course(config.frames, config.fps, subject.head.n_expr, subject.lids, for_course, config.absent)
    with staged_folder(config.output, config.force) as folder:
        clips = _open_clips(config, folder, cameras, monocular, for_colours)
        kept = sorted({0, *course.events.values()})
        with progress.Bar(config.frames, "rig", "frame") as bar:
            for timestep in range(config.frames):
                _frame(subject, course, timestep, clips, folder, timestep in kept)
                bar.advance()
        for clip in clips:
            clip.writer.close()
            _finish(config, subject, course, clip, folder, kept)
        Manifest(
            stage="rig", config={**dataclasses.asdict(config), "output": ""}, finished=True, result=course.events
        ).write(folder)
    return Rig(config.output, course.events)


def _open_clips(
    config: RigConfig, folder: Path, cameras: list[RigCamera], monocular: RigCamera, rng: np.random.Generator
) -> list[Clip]:
    for_plates, *by_clip = rng.spawn(4)
    blank = [np.ones((camera.height, camera.width, 3)) for camera in cameras]
    plates = blank if config.white else [colours.draw_plate(c.width, c.height, for_plates) for c in cameras]
    background = np.ones(3) if config.white else np.array([0.33, 0.47, 0.42])
    kinds = sequences.Kinds(config.videos, config.images, config.alpha_maps)
    clips = []
    for name, for_clip in zip(CLIPS, by_clip, strict=True):
        if name not in config.clips:
            continue
        sequence = folder / sequence_folder(name)
        sequence.mkdir(parents=True)
        mine, own_plates = cameras, plates
        world = np.eye(4) if name == "monocular" else world_from_studio()
        if name == "monocular":
            mine, own_plates = [monocular], [np.broadcast_to(background, (monocular.height, monocular.width, 3))]
            recorded: list[Callable[[Picture], Picture]] = [lambda picture: picture]
            videos = {"": folder / name / f"{VIDEO}.mp4"}
        elif name == "nersemble":
            recorded = _affine(folder / name / "color_correction" / SUBJECT, mine, for_clip)
            videos = {camera.name: sequence / f"cam_{camera.name}.mp4" for camera in mine}
        else:
            other = [OTHER_SIZE if i in OTHER_CAMERAS else 1.0 for i in range(len(cameras))]
            mine = [camera.scaled(factor) for camera, factor in zip(cameras, other, strict=True)]
            own_plates = [resized(plate, camera) for plate, camera in zip(plates, mine, strict=True)]
            recorded = _polynomial(folder / name / SUBJECT / "calibration" / "color_calibration.json", mine, for_clip)
            videos = {camera.name: sequence / "images" / f"cam_{camera.name}.mp4" for camera in mine}
        if name != "monocular":
            moved = [camera.moved(world) for camera in mine]
            where = {"nersemble": f"camera_params/{SUBJECT}", "nersemble_v2": f"{SUBJECT}/calibration"}[name]
            sequences.write_camera_params(folder / name / where / "camera_params.json", moved)
            seen = [record(plate) for record, plate in zip(recorded, own_plates, strict=True)]
            sequences.write_plates(sequence.parent / "BACKGROUND", mine, seen)
        writer = sequences.SequenceWriter(sequence, videos, mine, recorded, config.fps, kinds)
        clips.append(Clip(name, mine, world, sequence, own_plates, recorded, writer))
    return clips


def _affine(
    folder: Path, cameras: list[RigCamera], rng: np.random.Generator
) -> list[Callable[[Picture], Picture]]:  # fmt: skip
    folder.mkdir(parents=True)
    matrices = [colours.draw_affine(rng) for _ in cameras]
    for camera, matrix in zip(cameras, matrices, strict=True):
        np.save(folder / f"{camera.name}.npy", matrix)
    return [lambda picture, matrix=matrix: colours.before_affine(picture, matrix) for matrix in matrices]


def _polynomial(
    path: Path, cameras: list[RigCamera], rng: np.random.Generator
) -> list[Callable[[Picture], Picture]]:  # fmt: skip
    import json

    matrices = [colours.draw_polynomial(rng) for _ in cameras]
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {camera.name: matrix.tolist() for camera, matrix in zip(cameras, matrices, strict=True)}
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return [lambda picture, matrix=matrix: colours.before_polynomial(picture, matrix) for matrix in matrices]


def resized(picture: Picture, camera: RigCamera) -> Picture:
    """The picture as a camera with fewer pixels sees it: means of whole pixels."""
    factor = len(picture) // camera.height
    return picture.reshape(camera.height, factor, camera.width, factor, -1).mean((1, 3))


def _frame(
    subject: Subject, course: Course, timestep: int, clips: list[Clip], folder: Path, keep: bool
) -> None:  # fmt: skip
    """Draws all cameras of a timestep and hands the pictures to the clips."""
    from PIL import Image

    from flame_fitting.capture.pictures import to_uint8

    avatar, vertices = subject.avatar(course, timestep)
    points = subject.points(vertices)
    drawn: dict[bytes, tuple[ndarray, ndarray, ndarray]] = {}
    for clip in clips:
        # cameras of other sizes look through the largest one's picture
        whole = [max((c for k in clips for c in k.cameras if _same_place(c, own)), key=_width) for own in clip.cameras]
        _draw(avatar, [c for c in whole if _key(c) not in drawn], drawn)
        found, seen = [], []
        for index, (camera, source) in enumerate(zip(clip.cameras, whole, strict=True)):
            image, alpha, depth = drawn[_key(source)]
            pixels, visible = visible_landmarks(points, depth, source.K, source.world_to_camera)
            found.append(pixels * camera.width / source.width)
            seen.append(visible & course.present[timestep])
            if course.blank[timestep]:
                image, alpha = np.zeros_like(image), np.zeros_like(alpha)
            small, cover = resized(image, camera), resized(alpha[..., None], camera)
            picture = small + (1 - cover) * clip.plates[index]
            clip.writer.add(timestep, index, picture, cover[..., 0])
            if keep:
                path = folder / "truth" / clip.name / f"{sequences.picture_name(camera.name, timestep)}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(to_uint8(picture)).save(path)
        clip.landmarks.append(found)
        clip.visible.append(seen)


def _draw(avatar, cameras: list[RigCamera], drawn: dict[bytes, tuple[ndarray, ndarray, ndarray]]) -> None:  # type: ignore[no-untyped-def]
    """Adds premultiplied colours (H, W, 3), alpha (H, W) and depth (H, W) of cameras of one size."""
    if not cameras:
        return
    K, world_to_camera = (np.stack([getattr(c, name) for c in cameras]) for name in ("K", "world_to_camera"))
    size = cameras[0].width, cameras[0].height
    views = avatar.draw(K, world_to_camera, *size, "unlit", (0.0, 0.0, 0.0), outputs=("image", "alpha", "depth"))
    for index, camera in enumerate(cameras):
        drawn[_key(camera)] = (
            views.image[index].transpose(1, 2, 0).astype(np.float64), views.alpha[index], views.depth[index]
        )  # fmt: skip


def _key(camera: RigCamera) -> bytes:
    return camera.world_to_camera.tobytes() + camera.K.tobytes()


def _same_place(one: RigCamera, other: RigCamera) -> bool:
    return one.name == other.name and np.array_equal(one.world_to_camera, other.world_to_camera)


def _width(camera: RigCamera) -> int:
    return camera.width


def _finish(
    config: RigConfig, subject: Subject, course: Course, clip: Clip, folder: Path, kept: list[int]
) -> None:  # fmt: skip
    """Landmarks, tracks and truth of a clip whose pictures are written."""
    points, visible = (np.array(value).swapaxes(0, 1) for value in (clip.landmarks, clip.visible))
    if config.landmarks:
        for camera, pixels, seen in zip(clip.cameras, points, visible, strict=True):
            place = clip.sequence / "landmark2d" / "STAR"
            path = place / f"{camera.name}.npz" if camera.name else place.with_suffix(".npz")
            found = seen.sum(1) >= SEEN_POINTS
            sequences.write_landmarks(path, pixels, found, camera.width, camera.height)
    moved = [camera.moved(clip.world_from_studio) for camera in clip.cameras]
    one, calibrated = clip.cameras[0], clip.name != "monocular"
    studio = studio_track(subject, course, (one.height, one.width), None if calibrated else MONOCULAR_FOCAL)
    track = studio.moved(subject, clip.world_from_studio)
    root = config.output.absolute()
    write_fit(folder / "fit" / clip.name, subject, track, clip.sequence)
    background = "whiteBg" if config.white or not calibrated else "wBg"
    data: dict[str, object] = {"root_folder": root / clip.name, "sequence": SEQUENCE, "calibrated": calibrated}
    if calibrated:
        data |= {"subject": SUBJECT, "image_size_during_calibration": (3208, 2200)}
        name = f"{SUBJECT}_{SEQUENCE}_v{len(moved)}_DS1_{background}_staticOffset"
        seen_by_vhap = track.moved(subject, aligned_from_world(moved))
    else:
        data["sequence"], name, seen_by_vhap = VIDEO, f"{VIDEO}_{background}_staticOffset", track
    write_run(folder / "track" / clip.name / name, subject, seen_by_vhap, data)
    _write_truth(folder / "truth" / clip.name, subject, course, clip, moved, track, points, visible, kept)


def _write_truth(
    folder: Path,
    subject: Subject,
    course: Course,
    clip: Clip,
    cameras: list[RigCamera],
    track: Track,
    landmarks: Float[ndarray, "C T 68 2"],
    visible: Bool[ndarray, "C T 68"],
    kept: list[int],
) -> None:
    """truth.npz: everything in the world of the clip's files."""
    from flame_fitting.capture.camera import transform_points

    vertices = np.stack([transform_points(clip.world_from_studio, subject.vertices(course, t)) for t in kept])
    arrays: dict[str, ndarray] = {
        **track.parameters,
        "lights": track.lights,
        "present": course.present,
        "timestep_id": np.array(track.timestep_id),
        "camera_id": np.array([camera.name for camera in cameras]),
        "K": np.stack([camera.K for camera in cameras]),
        "world_to_camera": np.stack([camera.world_to_camera for camera in cameras]),
        "size": np.array([(camera.width, camera.height) for camera in cameras]),
        "aligned_from_world": aligned_from_world(cameras),
        "landmarks2d": landmarks.swapaxes(0, 1).astype(np.float32),
        "landmarks2d_visible": visible.swapaxes(0, 1),
        "vertices": vertices.astype(np.float32),
        "vertices_timestep": np.array(kept),
        **{f"event_{name}": np.array(timestep) for name, timestep in course.events.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "truth.npz") as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]  # one of its keywords is a bool
