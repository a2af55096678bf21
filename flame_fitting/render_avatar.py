"""`render`: finds the face of an avatar, plans views around it and renders them as a capture."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from flame_fitting.errors import InputError
from flame_fitting.folders import locked_folder
from flame_fitting.manifest import Manifest, config_as_dict, input_record
from flame_fitting.options import PLACE, option, own_first, place, refusals
from flame_fitting.shared_options import ComputeOptions, FaceFinderWeights, HeadOptions, OutputOptions

if TYPE_CHECKING:
    import numpy as np

    from flame_fitting.avatar.interface import Avatar, RenderedViews
    from flame_fitting.avatar.view_planning import PlannedView
    from flame_fitting.capture.capture import Capture
    from flame_fitting.capture.files import CaptureWriter
    from flame_fitting.head.embedding import LandmarkEmbedding
    from flame_fitting.head.model import HeadModel
    from flame_fitting.landmarks.detector import LandmarkDetector
    from flame_fitting.progress import Bar

DEFAULT = "default"
"""Name of the timestep that shows an avatar as its file has it, where morph targets are others."""
_MOVES, _LEAST_PIXELS = 1e-4, 20
"""A morph target is seen where it changes the depth of so many pixels, by this share of the depth around a head."""
_FRAME_ROUNDS = 2
"""Times that the head frame is found anew from views planned in the frame before."""
_FEWEST_VIEWS = 4
_SAME_SIDE = 10.0
"""Degrees within which a held-out view looks at the same side as a view for the fit."""
_PROBES = ((0.0, 0.0), (-30.0, 0.0), (30.0, 0.0), (0.0, 15.0), (0.0, -15.0), (-50.0, 10.0), (50.0, 10.0))
"""Yaw and pitch of the probe views, degrees."""


@dataclass(kw_only=True)
class PictureOptions:
    """What an avatar's pictures are like."""

    views: int = option(32, at_least=4)
    """Views the head is fitted to; landmark views and held-out views come on top."""
    resolution: int = option(512, at_least=64, at_most=8192)
    """Width and height of a view, px."""
    shading: Literal["auto", "unlit", "lit", "clay"] = "auto"
    """How the avatar is rendered; auto: unlit where it has colour, else clay."""


@own_first
@dataclass
class RenderConfig(PictureOptions, HeadOptions, FaceFinderWeights, ComputeOptions, OutputOptions):
    """Options of `flame-fitting render`."""

    avatar: tyro.conf.Positional[Path] = field(metadata=place("file"))
    """Avatar file: .glb .vrm .gltf .obj .ply .stl .off, or splats: .ply .splat .spz"""
    output: Path = field(metadata=PLACE)
    """Folder of the capture."""
    fov: float = option(25.0, at_least=5, at_most=90)
    """Vertical field of view, degrees."""
    background: str = "white"
    """Background: white, black, or red,green,blue from 0 to 255."""
    heldout_views: int = option(8, at_least=0)
    """Views kept apart for measuring."""
    morphs: tuple[str, ...] = ()
    """Morph targets of the avatar, by name (its last part or beginning will do) or all: each at weight 1 becomes a
    timestep after the avatar as it is."""


def render(config: RenderConfig, manifest: Manifest | None = None) -> "Capture":
    """Renders the capture and returns it. `manifest` is the `plan` of this very moment, where the caller has it."""
    _check(config)

    import numpy as np

    from flame_fitting import progress
    from flame_fitting.avatar.face_finding import find_face
    from flame_fitting.avatar.head_calibration import head_frame, landmark_embedding, shading_kind
    from flame_fitting.avatar.loading import chosen_morphs, load_avatar
    from flame_fitting.avatar.unit_frame import in_unit_frame
    from flame_fitting.avatar.view_planning import of_moments, plan_views
    from flame_fitting.capture.avatar_record import AvatarRecord, ViewAngles
    from flame_fitting.capture.files import CaptureWriter
    from flame_fitting.capture.pictures import parse_color
    from flame_fitting.capture.similarity import decompose_similarity, invert_similarity
    from flame_fitting.head.loading import load_head
    from flame_fitting.landmarks.registry import DETECTORS, Settings, make_detector

    def given_head() -> "HeadModel":
        return load_head(config.head, config.flame_dir, config.flame_masks)

    with progress.stage("render") as line, locked_folder(config.output, config.force, "render", (config.avatar,)):
        manifest = manifest or plan(config)
        morphs = chosen_morphs(config.avatar, config.morphs)
        # Everything is found and drawn in the unit frame; what is written is in the avatar's own coordinates.
        avatar, world_from_unit = in_unit_frame(load_avatar(config.avatar, head=given_head))
        unit_from_world, units = invert_similarity(world_from_unit), decompose_similarity(world_from_unit)[0]
        for text in avatar.warnings:
            progress.warn(text)
        # No teeth: they are never seen here.
        head = load_head(config.head, config.flame_dir, config.flame_masks, add_teeth=False)
        detector = make_detector(DETECTORS[0], Settings(config.model_path))
        shading = config.shading if config.shading != "auto" else "unlit" if avatar.has_color else "clay"
        # flat colours hide the nose from a detector, and soft light shows it
        landmark_shading = "lit" if shading == "unlit" else shading
        with progress.stage("face", part=True):
            found = find_face(avatar, detector, head, notify=progress.say, licensed=config.landmark_embedding)
            head_from_unit = found.head_from_world
            kind, licensed = shading_kind(landmark_shading), config.landmark_embedding
            embedding = landmark_embedding(head, detector, kind, notify=progress.say, licensed=licensed)
            for _ in range(_FRAME_ROUNDS):
                head_from_unit = _refined_frame(avatar, head, detector, embedding, landmark_shading, head_from_unit)
        head_from_world = head_from_unit @ unit_from_world
        planned = plan_views(
            head_from_unit, config.views, config.heldout_views, config.resolution, config.fov, head_frame(head)
        )
        avatar, planned = _settled(avatar, planned)
        background = parse_color(config.background, "--background")
        rotation = _rotation_of(head_from_world)
        record = AvatarRecord(
            file=str(config.avatar),
            sha256=avatar.file_hash,
            format=avatar.format,
            geometry=avatar.geometry,
            notes=tuple(avatar.notes),
            warnings=tuple(avatar.warnings),
            face=found.record(found.head_from_world @ unit_from_world),
            head_from_world=head_from_world,
            landmark_shading=landmark_shading,
            views=tuple(ViewAngles(view.role, view.yaw, view.pitch) for view in planned),
        )
        look = _Look(planned, shading, landmark_shading, background, rotation, world_from_unit)
        seen = of_moments(planned)
        with (
            CaptureWriter(config.output, background, shading, record, config.force) as writer,
            progress.Bar(len(planned) + len(morphs) * len(seen), "render", "view") as bar,
        ):
            shown = _drawn(avatar, look, range(len(planned)), writer, bar, 0, DEFAULT if morphs else "")
            kept: list[str] = []
            for morph in morphs:
                moved = load_avatar(config.avatar, morph).normalized(world_from_unit[:3, 3], units)
                if not _differs(moved, look, seen, shown):
                    progress.say(f"morph target {morph}: moves nothing that its views see, left out")
                    bar.advance(len(seen))
                    continue
                kept.append(morph)
                _drawn(moved, look, seen, writer, bar, len(kept), morph)
            if morphs and not kept:
                raise InputError(f"{config.avatar}: no morph target moves anything of the face that was found.")
            writer.ordered = not kept
            writer.avatar = replace(record, morphs=tuple(kept) or None)
            manifest.transforms = {"head_from_world": head_from_world.tolist()}
            for text in manifest.finish(lambda: plan(config)):
                progress.warn(text)
            writer.manifest = manifest
        for note in avatar.notes:
            progress.say(f"  {note}")
        millimetres = 1000 * np.cbrt(np.linalg.det(head_from_world[:3, :3]))
        unit = f"one unit is roughly {float(f'{millimetres:.2g}'):g} mm (the fit finds it more closely)"
        also = f" and {len(kept)} morph targets, {len(seen)} views each" if kept else ""
        line.result(f"{len(planned)} views{also}, {shading}, {unit} -> {config.output}")
    return writer.capture


def _settled(avatar: "Avatar", planned: "list[PlannedView]") -> "tuple[Avatar, list[PlannedView]]":
    """The avatar with the surface that views for fits have together, and the views that look at sides of it.

    Sides that nobody has ever seen are warned of, and avoided where enough others are left.
    """
    import numpy as np

    from flame_fitting import progress
    from flame_fitting.avatar.view_planning import side_of

    fit = [view for view in planned if view.role == "fit"]
    settled = avatar.settled(np.stack([v.K for v in fit]), np.stack([v.world_to_camera for v in fit]), fit[0].height)
    unseen = [view for view, blind in zip(fit, settled.unseen, strict=False) if blind]
    if not unseen:
        return settled, planned
    angles, kept = np.array([(view.yaw, view.pitch) for view in unseen]), planned
    if len(fit) - len(unseen) >= _FEWEST_VIEWS:
        kept = [view for view in planned if view.role == "landmark" or not _beside(view, angles)]
    sides = ", ".join(dict.fromkeys(side_of(view.yaw, view.pitch) for view in unseen))
    text = f"was never seen from some sides ({sides}): what is fitted there is guessed."
    settled.warnings.append(f"{avatar.path}: {text}")
    progress.warn(f"{avatar.path}: {text} {len(planned) - len(kept)} views are left out.")
    return settled, kept


def _beside(view: "PlannedView", angles: "np.ndarray") -> bool:
    """Whether a view looks from nearly the same side as any of those at `angles` (yaw and pitch, degrees)."""
    import numpy as np

    from flame_fitting.avatar.view_planning import directions

    own = directions(np.array([(view.yaw, view.pitch)]))[0]
    return bool((directions(angles) @ own).max() > np.cos(np.radians(_SAME_SIDE)))


@dataclass(frozen=True, eq=False)
class _Look:
    """How an avatar, in the unit frame, is drawn and its pictures are written."""

    planned: "list[PlannedView]"
    shading: str
    landmark_shading: str
    background: tuple[float, float, float]
    light_rotation: "np.ndarray"
    world_from_unit: "np.ndarray"

    def draw(self, avatar: "Avatar", chosen: "list[int]", **options: Any) -> "RenderedViews":
        """Views that `_alike` puts together."""
        import numpy as np

        first = self.planned[chosen[0]]
        return avatar.draw(
            np.stack([self.planned[k].K for k in chosen]),
            np.stack([self.planned[k].world_to_camera for k in chosen]),
            first.width,
            first.height,
            self.landmark_shading if first.role == "landmark" else self.shading,
            self.background,
            light_rotation=self.light_rotation,
            **options,
        )


def _drawn(
    avatar: "Avatar",
    look: _Look,
    chosen: Sequence[int],
    writer: "CaptureWriter",
    bar: "Bar",
    timestep: int,
    name: str,
) -> "dict[int, np.ndarray]":
    """Draws and writes the views chosen; returns the depth of each, unit frame."""
    from flame_fitting.avatar.interface import VIEWS_AT_ONCE
    from flame_fitting.capture.camera import move_camera
    from flame_fitting.capture.similarity import decompose_similarity

    units, depths = decompose_similarity(look.world_from_unit)[0], {}
    for start in range(0, len(chosen), VIEWS_AT_ONCE):
        chunk = list(chosen[start : start + VIEWS_AT_ONCE])
        for alike in _alike([look.planned[k] for k in chunk]):
            numbers = [chunk[k] for k in alike]
            pictures = look.draw(avatar, numbers)
            assert pictures.image is not None and pictures.alpha is not None
            assert pictures.depth is not None and pictures.normal is not None
            for i, k in enumerate(numbers):
                view, depths[k] = look.planned[k], pictures.depth[i]
                writer.add(
                    timestep=timestep,
                    camera=k,
                    role=view.role,
                    K=view.K,
                    world_to_camera=move_camera(view.world_to_camera, look.world_from_unit),
                    image=pictures.image[i],
                    alpha=pictures.alpha[i],
                    depth=pictures.depth[i] * units,
                    normal=pictures.normal[i],
                    noise=None if pictures.noise is None else pictures.noise[i] * units,
                    timestep_id=name,
                )
        bar.advance(len(chunk))
    return depths


def _differs(avatar: "Avatar", look: _Look, chosen: Sequence[int], shown: "dict[int, np.ndarray]") -> bool:
    """Whether views from the front, the right and the left show another surface than before (`shown`)."""
    import numpy as np

    fit = [k for k in chosen if look.planned[k].role == "fit" and look.planned[k].pitch == 0.0]
    for k in fit:
        depth = look.draw(avatar, [k], outputs=("depth",)).depth
        assert depth is not None
        apart = np.abs(depth[0] - shown[k]) > _MOVES * (look.planned[k].far - look.planned[k].near)
        if np.count_nonzero(apart) >= _LEAST_PIXELS:
            return True
    return False


def plan(config: RenderConfig) -> Manifest:
    """What decides the result."""
    from flame_fitting.avatar.files_of import hash_avatar
    from flame_fitting.head.loading import head_identity, head_inputs
    from flame_fitting.landmarks.registry import DETECTORS, Settings, make_detector

    detector = make_detector(DETECTORS[0], Settings(config.model_path))
    chosen = (config.head, config.flame_dir, config.flame_masks)
    inputs = dict(head_inputs(*chosen))
    if config.landmark_embedding is not None:
        inputs["landmark_embedding"] = config.landmark_embedding
    return Manifest(
        stage="render",
        config=config_as_dict(config),
        inputs={"avatar": input_record(config.avatar, config.output, hash_avatar(config.avatar))}
        | {role: input_record(path, config.output) for role, path in inputs.items()},
        head=head_identity(*chosen, add_teeth=False),
        detector=f"{detector.name} {detector.version}",
        seeds={"seed": config.seed},
    )


def _check(config: RenderConfig) -> None:
    for problem in refusals(config):
        raise InputError(problem)
    if config.views + config.heldout_views > 900:
        raise InputError(f"--views {config.views}: more than 900 views are not supported.")


def _refined_frame(
    avatar: "Avatar",
    head: "HeadModel",
    detector: "LandmarkDetector",
    embedding: "LandmarkEmbedding",
    shading: str,
    head_from_world: "np.ndarray",
) -> "np.ndarray":
    """The head frame of a rough fit to a few probe views planned in the frame given."""
    import copy

    import numpy as np

    from flame_fitting.avatar.head_calibration import detector_input, head_frame
    from flame_fitting.avatar.view_planning import head_cameras
    from flame_fitting.capture.camera import intrinsics_from_fov
    from flame_fitting.fit.rough import rough_head_frame
    from flame_fitting.fit.surface import SurfaceView
    from flame_fitting.landmarks.lifting import lift_landmarks

    size = 512
    cameras = head_cameras(np.array(_PROBES), head_from_world, head_frame(head))
    K = np.broadcast_to(intrinsics_from_fov(25.0, size, size), (len(cameras), 3, 3))
    pictures = avatar.draw(K, cameras, size, size, shading, light_rotation=_rotation_of(head_from_world))
    assert pictures.image is not None and pictures.depth is not None and pictures.normal is not None
    landmarks = detector.detect(detector_input(pictures.image))
    lifted = lift_landmarks(
        landmarks, K, cameras, detector.scheme, pictures.depth, pictures.normal, head_from_world=head_from_world
    )
    surface = [
        SurfaceView(pictures.depth[i], pictures.normal[i], pictures.image[i], K[i], cameras[i])
        for i in range(len(cameras))
    ]
    double = copy.deepcopy(head).double()
    return rough_head_frame(double, embedding, lifted, surface)


def _alike(views: "list[PlannedView]") -> list[list[int]]:
    """Indices of views that can be drawn in one call: same size, and landmark views apart."""
    groups: dict[tuple[int, int, bool], list[int]] = {}
    for index, view in enumerate(views):
        groups.setdefault((view.width, view.height, view.role == "landmark"), []).append(index)
    return list(groups.values())


def _rotation_of(similarity: "np.ndarray") -> "np.ndarray":
    import numpy as np

    return similarity[:3, :3] / np.cbrt(np.linalg.det(similarity[:3, :3]))


if __name__ == "__main__":
    from flame_fitting.cli import main_of

    main_of("render")
