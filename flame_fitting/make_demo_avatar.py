"""`make-demo-avatar`: a textured avatar that a fit cannot get for free, and its true head beside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flame_fitting.errors import InputError
from flame_fitting.folders import locked_folder
from flame_fitting.manifest import Manifest, compare, config_as_dict, read_manifest
from flame_fitting.options import not_deciding, option, own_first, refusals
from flame_fitting.shared_options import OutputOptions

if TYPE_CHECKING:
    import numpy as np

    from flame_fitting.avatar.demo_head import DemoHead
    from flame_fitting.avatar.demo_remesh import Remeshed

GLB_NAME, TRUTH_NAME, INFO_NAME = "demo_avatar.glb", "ground_truth.npz", "demo.json"


@own_first
@dataclass
class MakeDemoAvatarConfig(OutputOptions):
    """Options of `flame-fitting make-demo-avatar`."""

    output: Path = option(Path("output/demo/avatar"), decides=False)
    """Folder of the avatar and its ground truth."""
    seed: int = option(1, at_least=0)
    """Seed of the head, its skin, its unit and its placement."""
    head: str = "open"
    """Head model it is drawn from: open, or the path of a FLAME-format .npz file with texture and UV."""
    shape_sigma: float = option(0.9, at_least=0)
    """Size of the random shape coefficients, standard deviations."""
    expr_sigma: float = option(0.5, at_least=0)
    """Size of the random expression coefficients, standard deviations."""
    offset_mm: float = option(1.5, at_least=0)
    """Size (RMS over the face) of the smooth offsets that the head model cannot express, mm."""
    texture_size: int = option(2048, at_least=1)
    """Width and height of the texture, px."""


def make_demo_avatar(config: MakeDemoAvatarConfig) -> Path:
    """Writes demo_avatar.glb, ground_truth.npz and demo.json; returns the avatar's path.

    ground_truth.npz holds the true head in the head model's topology: vertices (V, 3) in avatar coordinates, faces,
    shape, expr, poses, static_offset (1, V, 3), head_from_world (4, 4), head_name, head_hash. The avatar's own surface
    has other triangles and another texture.
    """
    import time

    import numpy as np

    from flame_fitting import progress
    from flame_fitting.avatar.demo_head import draw_head
    from flame_fitting.avatar.demo_remesh import remesh
    from flame_fitting.avatar.demo_texture import paint_detail
    from flame_fitting.head.loading import load_head

    for problem in refusals(config):
        raise InputError(problem)
    start = time.monotonic()
    with progress.stage("make-demo-avatar") as line, locked_folder(config.output, config.force, "make-demo-avatar"):
        head = load_head(config.head)
        if not head.has_uv or head.texture is None:
            raise InputError(f"{config.head}: has no texture coordinates or no texture. Use --head open.")
        manifest = Manifest(
            stage="make-demo-avatar",
            config=config_as_dict(config),
            head={"name": head.name, "sha256": head.file_hash},
            seeds={"seed": config.seed},
        )
        there = (config.output / GLB_NAME).is_file() and (config.output / TRUTH_NAME).is_file()
        ignored = not_deciding(MakeDemoAvatarConfig)
        if there and not config.force and compare(read_manifest(config.output), manifest, ignored) is None:
            line.result(f"{config.output / GLB_NAME}: reused, nothing differs")
            return config.output / GLB_NAME
        config.output.mkdir(parents=True, exist_ok=True)
        manifest.write(config.output)
        for_head, for_mesh, for_skin = np.random.default_rng(config.seed).spawn(3)
        demo = draw_head(head, config.shape_sigma, config.expr_sigma, config.offset_mm * 1e-3, for_head)
        faces, uv, uv_faces = head.faces.numpy(), head.uv.numpy().astype(np.float64), head.uv_faces.numpy()
        # thin and sharp parts would be notched by other triangles
        keep = head.region_mask("ears", "lips_tight", "lip_inside", "eyelids").numpy()
        surface = remesh(demo.vertices_world, faces, uv, uv_faces, for_mesh, keep)
        picture = paint_detail(head, config.texture_size, for_skin)
        _write(config, demo, surface, picture, head.name, head.file_hash, faces)
        manifest.transforms = {"head_from_world": demo.head_from_world.tolist()}
        manifest.seconds = {"total": time.monotonic() - start}
        manifest.finished = True
        manifest.write(config.output)
        line.result(f"{config.output / GLB_NAME}: {len(surface.faces)} triangles, unit {demo.unit}")
    return config.output / GLB_NAME


def _write(
    config: MakeDemoAvatarConfig,
    demo: "DemoHead",
    surface: "Remeshed",
    picture: "np.ndarray",
    head_name: str,
    head_hash: str,
    faces: "np.ndarray",
) -> None:
    import json

    import numpy as np

    from flame_fitting.avatar.demo_glb import glb_bytes
    from flame_fitting.files import atomic_write

    with atomic_write(config.output / GLB_NAME) as temporary:
        temporary.write_bytes(glb_bytes(surface.vertices, surface.faces, surface.uv, picture))
    with atomic_write(config.output / TRUTH_NAME) as temporary:
        np.savez_compressed(
            temporary,
            vertices=demo.vertices_world,
            faces=faces,
            shape=demo.shape,
            expr=demo.expr,
            rotation=np.zeros((1, 3)),
            translation=np.zeros((1, 3)),
            neck_pose=demo.neck_pose,
            jaw_pose=demo.jaw_pose,
            eyes_pose=demo.eyes_pose,
            static_offset=demo.static_offset,
            head_from_world=demo.head_from_world,
            mm_per_unit=np.array(demo.mm_per_unit),
            head_name=np.array(head_name),
            head_hash=np.array(head_hash),
        )
    info = {
        "seed": config.seed,
        "unit": demo.unit,
        "mm_per_unit": demo.mm_per_unit,
        "axes": {"up": demo.up.tolist(), "forward": demo.forward.tolist()},
        "head_model": head_name,
        "vertices": len(surface.vertices),
        "triangles": len(surface.faces),
        "note": "Synthetic: drawn from the head model, with offsets it cannot express. head_from_world is in the .npz.",
    }
    with atomic_write(config.output / INFO_NAME) as temporary:
        temporary.write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
