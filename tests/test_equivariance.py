"""Turned and scaled avatars give the same head. The scale is estimated: as a unit it would follow the file's."""

import json
import struct
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flame_fitting.fit.result import FitResult, load_fit
from flame_fitting.fit.scale import METRES_PER_UNIT
from flame_fitting.head.loading import load_head
from flame_fitting.maths.closest import TriangleTree

SCALES = (1.0, 100.0, 1000.0)
ESTIMATE: dict[str, Any] = {"scale": "estimate"}
QUICK: dict[str, Any] = {"views": 12, "resolution": 256, "photometric": False} | ESTIMATE
"""Options of the sample in the default tests."""


def axis_rotations() -> list[np.ndarray]:
    """The 24 rotations (3, 3) that map axes onto axes; the first is the identity."""
    out = []
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        matrix = np.diag(signs)[:, list(order)]
        if np.linalg.det(matrix) > 0:
            out.append(matrix)
    return out


def write_moved(source: Path, path: Path, linear: np.ndarray) -> Path:
    """The GLB `source` with its geometry multiplied by `linear` (3, 3); the picture is stored without loss."""
    import trimesh

    (mesh,) = trimesh.load_scene(source, process=False).dump()
    assert isinstance(mesh, trimesh.Trimesh)
    transform = np.eye(4)
    transform[:3, :3] = linear
    mesh.apply_transform(transform)
    material: Any = mesh.visual.material  # type: ignore[union-attr]  # it has a picture
    # a converted picture has no format of its own, and is written as PNG
    material.baseColorTexture = material.baseColorTexture.convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    mesh.export(path)
    return path


def write_placed(source: Path, path: Path, scale: float, offset: np.ndarray) -> Path:
    """The GLB `source` under a new root node: coordinates `scale * (x + offset)`; geometry and pictures untouched."""
    content = source.read_bytes()
    (size,) = struct.unpack_from("<I", content, 12)
    document = json.loads(content[20 : 20 + size])
    nodes, scene = document["nodes"], document["scenes"][document.get("scene", 0)]
    nodes.append({"children": scene["nodes"], "translation": offset.tolist()})
    nodes.append({"children": [len(nodes) - 1], "scale": [scale] * 3})
    scene["nodes"] = [len(nodes) - 1]
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    rest = content[20 + size :]
    header = struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), b"JSON")
    path.write_bytes(header + text + rest)
    return path


def fit_once(avatar: Path, folder: Path, **options: Any) -> FitResult:
    """The whole chain without the dataset's pictures; the fit is read from its files."""
    import flame_fitting

    flame_fitting.fit_head(avatar, folder, **options)
    return load_fit(folder / "fit")


def differences_mm(fitted: FitResult, linear: np.ndarray, reference: FitResult, mm_per_unit: float) -> dict[str, float]:
    """Face distances between the fit of a moved avatar, moved back, and the fit of the avatar as it is."""
    head = load_head("open")
    face = head.regions["face"].numpy()
    expected = reference.vertices_world(head)[0]
    found = fitted.vertices_world(head)[0] @ np.linalg.inv(linear).T
    apart = np.linalg.norm(found - expected, axis=1)[face]
    surface = TriangleTree(expected, head.faces.numpy()).closest(found[face]).distance
    return {
        "vertex_median": float(np.median(apart) * mm_per_unit),
        "vertex_p95": float(np.percentile(apart, 95) * mm_per_unit),
        "surface_p95": float(np.percentile(surface, 95) * mm_per_unit),
    }


@dataclass(eq=False)
class Reference:
    """The demo avatar as it is, and its fits."""

    avatar: Path
    folder: Path
    mm_per_unit: float
    fits: dict[str, FitResult]

    def fit(self, name: str, options: dict[str, Any]) -> FitResult:
        """Made once for each set of options."""
        if name not in self.fits:
            self.fits[name] = fit_once(self.avatar, self.folder / name, **options)
        return self.fits[name]


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    from flame_fitting.make_demo_avatar import MakeDemoAvatarConfig, make_demo_avatar

    folder = tmp_path_factory.mktemp("equivariance")
    avatar = make_demo_avatar(MakeDemoAvatarConfig(output=folder / "avatar"))
    with np.load(folder / "avatar" / "ground_truth.npz", allow_pickle=False) as truth:
        return Reference(avatar, folder, float(truth["mm_per_unit"]), {})


def _check(reference: Reference, rotation: int, scale: float, name: str, options: dict, folder: Path) -> None:
    expected = reference.fit(name, options)
    linear = scale * axis_rotations()[rotation]
    moved = write_moved(reference.avatar, folder / "moved.glb", linear)
    found = differences_mm(fit_once(moved, folder / "out", **options), linear, expected, reference.mm_per_unit)
    print(f"rotation {rotation}, scale {scale:g}:", {key: round(value, 4) for key, value in found.items()})
    assert found["surface_p95"] <= 0.2 and found["vertex_median"] <= 0.5, found


def test_there_are_24_rotations() -> None:
    rotations = np.stack(axis_rotations())
    assert len(np.unique(rotations, axis=0)) == 24 and (rotations[0] == np.eye(3)).all()
    np.testing.assert_allclose(np.linalg.det(rotations), 1.0)


def test_moved_avatar_is_the_avatar_moved(reference: Reference, tmp_path: Path) -> None:
    from flame_fitting.avatar.loading import load_avatar

    linear = 100.0 * axis_rotations()[5]
    was, now = (load_avatar(p) for p in (reference.avatar, write_moved(reference.avatar, tmp_path / "a.glb", linear)))
    np.testing.assert_allclose(now.vertices, was.vertices @ linear.T, rtol=1e-6, atol=1e-3)
    np.testing.assert_array_equal(now.faces, was.faces)
    np.testing.assert_array_equal(now.parts[0].texture, was.parts[0].texture)


@pytest.mark.parametrize(("rotation", "scale"), [(9, 1000.0), (14, 100.0)])
def test_a_turned_and_scaled_avatar_gives_the_same_head(
    reference: Reference, rotation: int, scale: float, tmp_path: Path
) -> None:
    _check(reference, rotation, scale, "quick", QUICK, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0.0, 1.0])
@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1.0, 1e6, 1e9])
def test_any_unit_and_place_gives_the_same_fit(
    reference: Reference, scale: float, place: float, tmp_path: Path
) -> None:
    """Survey coordinates in any unit: only double precision tells the vertices of the head apart.

    Pictures and landmarks are equal. What is left in the fit comes from the depth maps' single precision: it decides
    which of two pixels stands for a voxel of the surface, and that moves the fit by some hundredths of a millimetre.
    """
    from PIL import Image

    expected = reference.fit("quick", QUICK)
    offset = place * np.array([348211.0, 5412877.0, 112.0])
    placed = write_placed(reference.avatar, tmp_path / "a.glb", scale, offset)
    folders = reference.folder / "quick", tmp_path / "out"
    found = fit_once(placed, folders[1], **QUICK)

    pictures = sorted(path.name for path in (folders[0] / "render" / "images").iterdir())
    assert len(pictures) > 30
    for name in pictures:
        one, two = (np.asarray(Image.open(folder / "render" / "images" / name)).astype(int) for folder in folders)
        assert (one != two).mean() < 1e-3, name
    one, two = (np.load(f / "render" / "landmarks2d" / "mediapipe.npz")["landmarks"][..., :2] for f in folders)
    np.testing.assert_allclose(two, one, atol=0.05)

    head = load_head("open")
    face = head.regions["face"].numpy()

    def apart(vertices: np.ndarray, before: np.ndarray) -> np.ndarray:
        return np.linalg.norm(vertices / scale - offset - before, axis=1) * reference.mm_per_unit

    assert apart(found.stages[0].vertices_world(head)[0], expected.stages[0].vertices_world(head)[0]).max() < 1e-2
    distance = apart(found.vertices_world(head)[0], expected.vertices_world(head)[0])[face]
    print(f"scale {scale:g}, place {place:g}: face {np.median(distance):.2g} mm, p95 {np.percentile(distance, 95):.2g}")
    assert np.median(distance) < 0.05 and np.percentile(distance, 95) < 0.15
    assert found.mm_per_unit * scale == pytest.approx(expected.mm_per_unit, rel=1e-3)
    was, now = (json.loads((folder / "fit" / "metrics.json").read_text()) for folder in folders)
    assert set(now["stages"]) == set(was["stages"]) and now["warnings"] == was["warnings"]
    for name, stage in now["stages"].items():
        other = was["stages"][name]["regions"]["face"]["to_avatar_mm"]["median"]
        assert stage["regions"]["face"]["to_avatar_mm"]["median"] == pytest.approx(other, abs=5e-3)
    mesh = (folders[1] / "fit" / "fitted.obj").read_text().splitlines()
    rows = np.array([line.split()[1:4] for line in mesh if line.startswith("v ")], dtype=np.float64)
    np.testing.assert_allclose(rows, found.vertices_world(head)[0], atol=1e-6 * scale, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("rotation", range(24))
def test_all_axes_and_scales_give_the_same_head(
    reference: Reference, rotation: int, scale: float, tmp_path: Path
) -> None:
    import shutil

    _check(reference, rotation, scale, "default", ESTIMATE, tmp_path)
    shutil.rmtree(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mm_per_unit", "source"),
    [
        *((1000.0 * metres, f"auto: {unit}") for unit, metres in METRES_PER_UNIT.items()),
        (61.0, "estimated"),
        (115.0, "estimated"),
    ],
)
def test_an_avatar_in_a_common_unit_gets_its_true_size(
    reference: Reference, mm_per_unit: float, source: str, tmp_path: Path
) -> None:
    moved = write_moved(reference.avatar, tmp_path / "moved.glb", np.eye(3) * reference.mm_per_unit / mm_per_unit)
    fitted = fit_once(moved, tmp_path / "out", **(QUICK | {"scale": "auto"}))
    assert fitted.scale_source == source and fitted.scale_by_face is not None
    assert fitted.mm_per_unit == pytest.approx(mm_per_unit, rel=0.08 if source == "estimated" else 1e-6)
