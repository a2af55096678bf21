"""How a rigged avatar moves, as a sheet and as a GIF: a written file is posed by its own joints and morph targets."""

import copy
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from scipy.spatial.transform import Rotation

from flame_fitting.avatar.gltf import GltfPrimitive, read_primitives
from flame_fitting.avatar.gltf_buffers import read_container
from flame_fitting.avatar.gltf_morphs import names_of
from flame_fitting.avatar.interface import Avatar
from flame_fitting.avatar.local_files import LocalFiles
from flame_fitting.avatar.mesh import MeshPart
from flame_fitting.avatar.mesh_avatar import MeshAvatar
from flame_fitting.capture.camera import transform_points
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.export.head_rig import CORRECTIVE, CORRECTIVE_ANGLE, JOINTS, NECK, OPEN
from flame_fitting.export.rigging.fitted_head import FittedHead
from flame_fitting.report.animation_sheet import camera_before, joined
from flame_fitting.report.drawing import Cameras
from flame_fitting.report.figures import labelled

_FACE, _DETAIL, _GIF = (300, 372), (368, 184), (360, 448)
"""Pixels, width and height; two details stand one above the other beside a face."""
_STRIP = 34
_TURN, _GAZE = 30.0, 20.0
"""Degrees."""
_FPS, _STEPS = 10, 4
"""Pictures of the GIF in a second, and on the way to a pose."""


class Pose(NamedTuple):
    """What is done to a file."""

    title: str
    turns: dict[str, tuple[float, float, float]]
    """Axis-angle of joints beyond the bind pose, about their own axes, radians."""
    weights: dict[str, float]
    """Of morph targets."""

    def at(self, amount: float) -> "Pose":
        """Part of it."""
        turns = {name: (amount * x, amount * y, amount * z) for name, (x, y, z) in self.turns.items()}
        return Pose(self.title, turns, {name: amount * weight for name, weight in self.weights.items()})


REST = Pose("as it stands", {}, {})


def poses_of(has_joints: bool) -> list[Pose]:
    """What is shown of every avatar; of one that keeps a rig of its own what needs no joint."""
    blink = Pose("eyeBlinkLeft, eyeBlinkRight 1", {}, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0})
    faces = [
        Pose("mouthSmileLeft, mouthSmileRight 1", {}, {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0}),
        Pose("mouthPucker 1, browInnerUp 1", {}, {"mouthPucker": 1.0, "browInnerUp": 1.0}),
        # of head models without ARKit's actions
        *(Pose(f"expr_{k:03d} 2", {}, {f"expr_{k:03d}": 2.0}) for k in range(2)),
    ]
    if not has_joints:
        share = CORRECTIVE_ANGLE / OPEN
        return [REST, Pose(f"jawOpen {share:.2g}", {}, {"jawOpen": share}), blink, *faces]
    turn, gaze = np.radians(_TURN), np.radians(_GAZE)
    eyes = dict.fromkeys(("left_eye", "right_eye"), (0.0, gaze, 0.0))
    look = {"eyeLookOutLeft": 0.5, "eyeLookInRight": 0.5}
    return [
        REST,
        Pose(f"jaw open by {CORRECTIVE_ANGLE} rad", {"jaw": (CORRECTIVE_ANGLE, 0.0, 0.0)}, {CORRECTIVE: 1.0}),
        blink,
        Pose(f"eyes {_GAZE:g} degrees to its left", eyes, look),
        Pose(f"neck {_TURN:g} degrees to its left", {"neck": (0.0, turn, 0.0)}, {}),
        Pose(f"neck {_TURN:g} degrees to its right", {"neck": (0.0, -turn, 0.0)}, {}),
        *faces,
    ]


class WrittenAvatar:
    """A written GLB, to be posed."""

    def __init__(self, content: bytes) -> None:
        self._document, self._binary = read_container(content)
        joints = {joint for skin in self._document.get("skins", []) for joint in skin["joints"]}
        self._joints = {self._document["nodes"][joint].get("name"): joint for joint in joints}
        self._shown = [found.part for found in self._read(self._document)]
        bare = copy.deepcopy(self._document)
        for mesh in bare["meshes"]:
            for primitive in mesh["primitives"]:
                primitive.pop("material", None)
        self._bare = bare

    def parts(self, pose: Pose) -> list[MeshPart]:
        """The avatar as its file says it looks; the file's coordinates."""
        document = self._bare | {"nodes": copy.deepcopy(self._bare["nodes"])}
        for name, turn in pose.turns.items():
            node = document["nodes"][self._joints[name]]
            own = Rotation.from_quat(node.get("rotation", (0, 0, 0, 1)))
            node["rotation"] = (own * Rotation.from_rotvec(turn)).as_quat().tolist()
        for node in document["nodes"]:
            if "mesh" in node:
                mesh = document["meshes"][node["mesh"]]
                names = names_of(mesh)
                given = node.get("weights", mesh.get("weights", []))
                before = [*given, *[0.0] * (len(names) - len(given))]
                node["weights"] = [pose.weights.get(name, old) for name, old in zip(names, before, strict=True)]
        moved = self._read(document)
        return [
            replace(part, vertices=now.part.vertices, normals=now.part.normals)
            for part, now in zip(self._shown, moved, strict=True)
            if len(part.faces)
        ]

    @property
    def has_joints(self) -> bool:
        """Whether it has the joints of a head model."""
        return set(JOINTS) <= set(self._joints)

    @property
    def targets(self) -> set[str]:
        """Names of its morph targets."""
        return {name for mesh in self._document["meshes"] for name in names_of(mesh)}

    def _read(self, document: dict[str, Any]) -> list[GltfPrimitive]:
        return read_primitives(document, self._binary, LocalFiles(Path("memory")), lambda text: None)


@runtime_checkable
class Shown(Protocol):
    """A rigged avatar that can be posed and drawn."""

    @property
    def has_joints(self) -> bool:
        """Whether it has the joints of a head model."""
        ...

    @property
    def targets(self) -> set[str]:
        """Names that weights of a pose may have."""
        ...

    def avatar(self, pose: Pose) -> Avatar:
        """As it looks in a pose; head space."""
        ...


class ShownMesh:
    """A written avatar in head space."""

    def __init__(self, written: WrittenAvatar, head_from_file: Float[ndarray, "4 4"]) -> None:
        self._written, self._head_from_file = written, head_from_file
        self.has_joints, self.targets = written.has_joints, written.targets

    def avatar(self, pose: Pose) -> Avatar:
        """See `Shown`."""
        parts = self._written.parts(pose)
        places = (transform_points(self._head_from_file, part.vertices) for part in parts)
        placed = [replace(part, vertices=each, normals=None) for part, each in zip(parts, places, strict=True)]
        return MeshAvatar(placed, Path("memory"), "", "memory")


class Stage:
    """Where a rigged avatar is drawn: by cameras before the fitted head, in head space.

    `steps`: pictures of the GIF on the way to a pose.
    """

    def __init__(self, shown: Shown, head: FittedHead, lit: str, steps: int = _STEPS) -> None:
        self._shown, self._head, self._lit, self._steps = shown, head, lit, steps
        face = head.mask("face")
        self.poses = [pose for pose in poses_of(shown.has_joints) if pose is REST or _shows(pose, shown)]
        opened = head.posed(jaw_pose=head.fit.parameters["jaw_pose"] + np.array([[CORRECTIVE_ANGLE, 0, 0]], np.float32))
        seen = np.concatenate([each[face] if face.any() else each for each in (head.vertices, opened)])
        self._face, self._gif = (camera_before(seen, size, 1.35) for size in (_FACE, _GIF))
        self._details = []
        eyes, lips = head.mask("eyes"), head.mask("lips")
        if eyes.any() and lips.any():
            self._details = [
                camera_before(head.vertices[eyes], _DETAIL, 1.15),
                camera_before(np.concatenate([head.vertices[lips], opened[lips]]), _DETAIL, 1.5),
            ]

    def sheet(self, advance: Callable[[], None] = lambda: None) -> UInt8[ndarray, "H W 3"]:
        """Every pose from the front, its eyes and mouth close by; two poses in a row."""
        panels = []
        for pose in self.poses:
            avatar = self._shown.avatar(pose)
            close = [self._following(camera, pose) for camera in self._details]
            face, *details = (self._drawn(avatar, camera) for camera in [self._face, *close])
            row = joined([face, *([joined(details, 0)] if details else [])], 1)
            panels.append(_titled(row, pose))
            advance()
        panels += [np.full_like(panels[0], 255)] * (len(panels) % 2)
        return np.concatenate([joined(panels[k : k + 2], 1, 24) for k in range(0, len(panels), 2)])

    def gif(self, advance: Callable[[], None] = lambda: None) -> bytes:
        """A GIF that goes through all poses and ends as it begins."""
        frames = []
        for pose, amount in self._way():
            picture = self._drawn(self._shown.avatar(pose.at(amount)), self._gif)
            frames.append(Image.fromarray(_titled(picture, pose)))
            advance()
        # one palette for all, so that nothing flickers
        palette = Image.fromarray(np.concatenate([np.asarray(each) for each in frames[:: max(1, self._steps - 2)]]))
        palette = palette.quantize(255, Image.Quantize.MEDIANCUT)
        frames = [each.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for each in frames]
        stream = io.BytesIO()
        frames[0].save(
            stream, "GIF", save_all=True, append_images=frames[1:], duration=1000 // _FPS, loop=0, optimize=False
        )
        return stream.getvalue()

    @property
    def pictures(self) -> int:
        """How often `sheet` and `gif` advance."""
        return len(self.poses) + len(self._way())

    def _way(self) -> list[tuple[Pose, float]]:
        rise = 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, self._steps))
        amounts = [*rise, 1.0, 1.0, *rise[::-1][1:]]
        return [(pose, float(amount)) for pose in self.poses if pose is not REST for amount in amounts]

    def _following(self, camera: Cameras, pose: Pose) -> Cameras:
        """The camera, turned with the head where its neck turns."""
        axes, place = self._head.axes[NECK], self._head.joints[NECK]
        motion = np.eye(4)
        motion[:3, :3] = axes @ Rotation.from_rotvec(pose.turns.get("neck", (0, 0, 0))).as_matrix() @ axes.T
        motion[:3, 3] = place - motion[:3, :3] @ place
        return camera._replace(head_to_camera=camera.head_to_camera @ np.linalg.inv(motion))

    def _drawn(self, avatar: Avatar, cameras: Cameras) -> UInt8[ndarray, "h w 3"]:
        width, height = cameras.size
        drawn = avatar.draw(cameras.K, cameras.head_to_camera, width, height, self._lit, outputs=("image",))
        assert drawn.image is not None
        return to_uint8(drawn.image[0].transpose(1, 2, 0))


def _shows(pose: Pose, shown: Shown) -> bool:
    return bool(pose.turns or set(pose.weights) & shown.targets)


def _titled(picture: UInt8[ndarray, "h w 3"], pose: Pose) -> UInt8[ndarray, "H w 3"]:
    strip = np.full((_STRIP, picture.shape[1], 3), 255, dtype=np.uint8)
    return np.concatenate([labelled(strip, pose.title), picture])
