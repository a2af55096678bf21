"""Options of `export` that belong to formats; which of them means something to which stands in `formats.py`.

No heavy import here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flame_fitting.options import option

FormatName = Literal["vhap", "colmap", "obj", "ply", "glb", "rigged-avatar"]
"""The names that `--format` takes: the rows of `formats.FORMATS`."""
FROM_EXPORT = "Give folders that were written by: flame-fitting export"
"""What is said of datasets that are not there, or none."""
Pose = Literal["fit", "neutral", "zero"]


@dataclass(kw_only=True)
class FormatOptions:
    """What may be chosen about an export."""

    format: FormatName = "vhap"
    """What to write: vhap (the dataset of VHAP, GaussianAvatars, nerfstudio, instant-ngp), colmap (a sparse model with
    pictures), obj or ply (the mesh), glb (one file with skeleton, morph targets, texture and motion), rigged-avatar
    (the avatar itself with skeleton and morph targets)."""
    space: Literal["avatar", "head"] | None = None
    """Meshes: in the avatar's own coordinates or in head space, metres (default: avatar; with --pose zero head)."""
    pose: Pose = "fit"
    """Meshes: fit, neutral (no expression, joints at rest, placed as the fit) or zero (neutral, not placed)."""
    bake: Literal["albedo", "shaded"] = "albedo"
    """Colours of a mesh, from all pictures of the capture: without the light of a lit capture, or as they show it."""
    texture_size: int = option(2048, at_least=256, at_most=8192)
    """Width and height of the texture of an obj or glb, px; 1024 to 4096 are usual."""
    background_color: str | None = None
    """Background: white, black or three numbers from 0 to 255 as r,g,b. Default: that of the capture, else white; of
    colmap black."""
    subset: str | None = None
    """Part of the capture: ti<a>[tj<b>], tn<k>, ts<k> for timesteps, ci<a>, cn<k>, cs<k> for cameras, as in VHAP."""
    scale_factor: float | None = option(None, above=0, at_most=1)
    """Scales the pictures down, above 0 and at most 1."""
    flame_mode: Literal["param", "mesh"] = "param"
    """What is written for every timestep: parameters (flame_param/) or a mesh (meshes/)."""
    mask_below_line: bool = True
    """Cut pictures and masks below the neck: one surface in space for all views of a timestep."""
    create_mask_from_mesh: bool = True
    """VHAP's name for the same; the cut is made where both are on."""
    landmark_views: bool = False
    """Also export the views that were made for landmark detection, for training."""
    train_ratio: float = option(0.7, above=0, at_most=1)
    """Several timesteps: part of them, from the first, that train and validate; the rest tests."""
    val_camera: str | None = None
    """Several timesteps: camera that validates, by its name or index, or none (default: VHAP's, 8, else the last)."""
    recenter: bool = True
    """Several timesteps: the mean of the head's translations becomes the origin, as in VHAP."""
    n_expr: int | None = option(None, at_least=0)
    """Expression components that become morph targets, the first ones; all by default."""
    replace_rig: bool = False
    """Rigged avatar: give an avatar that is rigged already the head model's joints; else it keeps its own."""
    avatar: Path | None = option(None, decides=False, reads="file")
    """Rigged avatar: its file, if it is not where it was rendered from."""

    @property
    def cuts(self) -> bool:
        """Whether pictures and masks are cut below the neck."""
        return self.mask_below_line and self.create_mask_from_mesh
