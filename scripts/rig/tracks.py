"""The true track of a clip: as a fit of this program, and as a run folder as VHAP leaves it."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.export.dialects.parameters import FlameParams, about_root_joint, root_joint
from flame_fitting.fit.parameters import POSES
from flame_fitting.fit.result import FitResult, save_parameters
from flame_fitting.manifest import Manifest, input_record

from .course import Course
from .subject import Subject

RUN_NAME = "2024-01-01_10-00-00"
EPOCHS = (0, 30)
EARLY_EXPR = 0.8
"""Expression of the first epoch's file to the true one, so that the two files can be told apart."""


@dataclass(eq=False)
class Track:
    """True parameters in a clip's world."""

    parameters: dict[str, ndarray]
    """Keys and shapes as in `fit.result.FitResult`."""
    lights: Float[ndarray, "9 3"]
    image_size: tuple[int, int]
    """(H, W) px."""
    timestep_id: list[str]
    focal_length: float | None = None
    """In units of the longer side; None for calibrated cameras."""

    def moved(self, subject: Subject, new_from_world: Float[ndarray, "4 4"]) -> "Track":
        """The same head in a world that is turned and shifted; the rotation pivots at the root joint."""
        count = len(self.parameters["expr"])
        poses = {name: self.parameters[name].astype(np.float64) for name in POSES}
        turn = _axis_angle(new_from_world[:3, :3])
        shift = poses.pop("translation") @ new_from_world[:3, :3].T + new_from_world[:3, 3]
        params = FlameParams(
            shape=self.parameters["shape"],
            expr=self.parameters["expr"],
            static_offset=self.parameters["static_offset"],
            translation=shift,
            world_rotation=np.tile(turn, (count, 1)),
            **poses,
        )
        params = about_root_joint(params, root_joint(params, subject.head))
        moved = self.parameters | {name: getattr(params, name) for name in POSES}
        return Track(
            moved, turned_light(self.lights, new_from_world[:3, :3]), self.image_size, self.timestep_id,
            self.focal_length,
        )  # fmt: skip


def studio_track(subject: Subject, course: Course, size: tuple[int, int], focal: float | None) -> Track:
    """The truth in the studio."""
    parameters = {name: getattr(course, name) for name in ("expr", *POSES)}
    parameters |= {"shape": subject.shape, "static_offset": subject.static_offset}
    return Track(parameters, subject.lights, size, [f"{t:06d}" for t in range(len(course))], focal)


def turned_light(lights: Float[ndarray, "9 3"], turn: Float[ndarray, "3 3"]) -> Float[ndarray, "9 3"]:
    """The same light in coordinates x' = turn x: harmonics of one order are closed under turns, so this is exact."""
    import torch

    from flame_fitting.render.shading import sh_basis

    normals = np.random.default_rng(0).standard_normal((64, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    before, after = (sh_basis(torch.as_tensor(points)).numpy() for points in (normals, normals @ turn.T))
    return np.linalg.lstsq(after, before @ lights, rcond=None)[0]


def write_fit(folder: Path, subject: Subject, track: Track, capture: Path) -> None:
    """A fit of this program: head_from_world is the identity, rotation and translation carry the motion."""
    from PIL import Image

    head = subject.head
    result = FitResult(
        head_name=head.name,
        head_hash=head.file_hash,
        head_identity=dict(head.identity),
        parameters=track.parameters,
        head_from_world=np.eye(4),
        image_size=track.image_size,
        timestep_id=track.timestep_id,
        texture=subject.texture,
        lights=track.lights,
        scale_source="truth",
        focal_length=track.focal_length,
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_parameters(folder / "tracked_flame_params.npz", result)
    Image.fromarray(subject.texture).save(folder / "texture.png")
    record = input_record(capture, folder)
    identity = {"name": head.name, "sha256": head.file_hash}
    Manifest(
        stage="fit", inputs={"capture": record}, head=identity, transforms={"head_from_world": np.eye(4).tolist()},
        finished=True,
    ).write(folder)  # fmt: skip


def write_run(folder: Path, subject: Subject, track: Track, data: dict[str, Any]) -> None:
    """What VHAP leaves of a run: `folder`/<time>/{config.yml, tracked_flame_params_<epoch>.npz}.

    `data` are the options of its section of that name that differ from the defaults. The parameters are those of the
    world that VHAP tracks in, see `cameras.aligned_from_world`.
    """
    run = folder / RUN_NAME
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yml").write_text(run_config(data, folder), encoding="utf-8")
    arrays = {name: value.astype(np.float32) for name, value in track.parameters.items()}
    arrays |= {
        "lights": track.lights.astype(np.float32),
        "timestep_id": np.array(track.timestep_id),
        "n_processed_frames": np.array(0),
        "image_size": np.array(track.image_size),
        "tex_extra": subject.texture.transpose(2, 0, 1).astype(np.float32) / 255,
    }
    if track.focal_length is not None:
        arrays["focal_length"] = np.array([track.focal_length], np.float32)
    for epoch in EPOCHS:
        share = 1.0 if epoch == EPOCHS[-1] else EARLY_EXPR
        np.savez(run / f"tracked_flame_params_{epoch}.npz", **arrays | {"expr": share * arrays["expr"]})


def run_config(data: dict[str, Any], output: Path) -> str:
    """config.yml of a run, with the tags that `yaml.dump` gives to dataclasses, paths, tuples and classes.

    The options are VHAP's; its classes' own names are not, they are made up: a reader must not depend on them.
    """
    rig = bool(data["calibrated"])
    base = {
        "_target": _Class("vhap.data.RigDataset" if rig else "vhap.data.VideoDataset"),
        "division": None, "subset": None, "align_cameras_to_axes": True,
        "camera_convention_conversion": "opencv->opengl", "target_extrinsic_type": "w2c", "n_downsample_rgb": None,
        "scale_factor": 1.0, "background_color": None if rig else "white", "use_alpha_map": False,
        "use_landmark": True, "landmark_source": "star",
    }  # fmt: skip
    sections = {
        "data": base | ({"use_color_correction": True} if rig else {}) | data,
        "model": {"n_shape": 300, "n_expr": 100, "n_tex": 100, "use_static_offset": True, "use_dynamic_offset": False,
                  "add_teeth": False, "tex_painted": True, "residual_tex": False, "occluded": (),
                  "flame_params_path": None},
        "render": {"backend": "nvdiffrast", "lighting_type": "SH", "lighting_space": "world",
                   "background_train": "target"},
        "w": {"landmark": 3.0 if rig else 10.0, "photo": 30.0, "reg_shape": 0.3},
        "exp": {"output_folder": output, "reuse_landmarks": True, "photometric": True},
    }  # fmt: skip
    content: dict[str, Any] = {name: _Tagged(f"vhap.config.{name}", values) for name, values in sections.items()}
    content |= {"begin_stage": None, "begin_timestep": 0, "async_func": True, "device": "cuda"}
    return yaml.dump(_Tagged("vhap.config.Tracking", content), Dumper=_Dumper, sort_keys=False)


class _Tagged:
    def __init__(self, name: str, values: dict[str, Any]) -> None:
        self.name, self.values = name, values


class _Class:
    def __init__(self, name: str) -> None:
        self.name = name


class _Dumper(yaml.SafeDumper):
    """Writes what PyYAML's own dumper writes of Python's objects."""


_PYTHON = "tag:yaml.org,2002:python/"
_Dumper.add_representer(
    _Tagged, lambda dumper, node: dumper.represent_mapping(f"{_PYTHON}object:{node.name}", node.values)
)  # fmt: skip
_Dumper.add_representer(_Class, lambda dumper, node: dumper.represent_scalar(f"{_PYTHON}name:{node.name}", ""))
_Dumper.add_representer(tuple, lambda dumper, node: dumper.represent_sequence(f"{_PYTHON}tuple", list(node)))
_Dumper.add_multi_representer(
    PurePosixPath,
    lambda dumper, path: dumper.represent_sequence(f"{_PYTHON}object/apply:pathlib.PosixPath", list(path.parts)),
)


def _axis_angle(matrix: Float[ndarray, "3 3"]) -> Float[ndarray, " 3"]:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(matrix).as_rotvec()
