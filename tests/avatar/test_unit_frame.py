"""Any unit and any place: the same pictures, through every format that can hold the coordinates."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from flame_fitting.avatar.loading import load_avatar
from flame_fitting.avatar.probes import probes_of
from flame_fitting.avatar.unit_frame import in_unit_frame
from flame_fitting.capture.camera import intrinsics_from_fov, look_at, move_camera, project
from tests.avatar.glb_builder import GlbBuilder

SIZE = 96
FAR = np.array([348211.0, 5412877.0, 112.0])
SCALES = (1e-9, 1e-6, 1e-3, 1.0, 1e3, 1e9)
PLACES = [(scale, place) for scale in SCALES for place in (0.0, 1.0)]
_BALL = trimesh.creation.icosphere(subdivisions=3)
VERTICES = np.round(np.asarray(_BALL.vertices) * [0.075, 0.11, 0.09] * 2**20) / 2**20  # float32 holds them exactly
FACES = np.asarray(_BALL.faces)
COLORS = np.round(255 * (0.5 + 0.5 * np.sin(40 * VERTICES))).astype(np.uint8)


def write(path, scale: float, place: float):
    """The ball in coordinates `scale * (v + place * FAR)`, in the format of the file's suffix."""
    world = scale * (VERTICES + place * FAR)
    if path.suffix == ".obj":
        rows = [
            "v {!r} {!r} {!r} {!r} {!r} {!r}".format(*v, *c)
            for v, c in zip(world.tolist(), (COLORS / 255).tolist(), strict=True)
        ]
        path.write_text("\n".join(rows + ["f {} {} {}".format(*(f + 1)) for f in FACES]) + "\n")
    elif path.suffix == ".off":
        rows = [
            "{!r} {!r} {!r} {} {} {} 255".format(*v, *c) for v, c in zip(world.tolist(), COLORS.tolist(), strict=True)
        ]
        rows += ["3 {} {} {}".format(*f) for f in FACES]
        path.write_text(f"COFF\n{len(world)} {len(FACES)} 0\n" + "\n".join(rows) + "\n")
    elif path.suffix == ".ply":
        names = "".join(f"property double {axis}\n" for axis in "xyz")
        names += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
        header = (
            f"element vertex {len(world)}\n{names}element face {len(FACES)}\nproperty list uchar int vertex_indices\n"
        )
        table = np.empty(len(world), dtype=[("v", "<f8", 3), ("c", "u1", 3)])
        table["v"], table["c"] = world, COLORS
        faces = np.empty(len(FACES), dtype=[("n", "u1"), ("v", "<i4", 3)])
        faces["n"], faces["v"] = 3, FACES
        content = f"ply\nformat binary_little_endian 1.0\n{header}end_header\n".encode()
        path.write_bytes(content + table.tobytes() + faces.tobytes())
    else:
        builder = GlbBuilder()
        primitive = builder.primitive(VERTICES.astype(np.float32), FACES.astype(np.uint16))
        colors = np.where(COLORS / 255 <= 0.04045, COLORS / 255 / 12.92, ((COLORS / 255 + 0.055) / 1.055) ** 2.4)
        primitive["attributes"]["COLOR_0"] = builder.accessor(colors.astype(np.float32))
        builder.scene(primitive)
        nodes = builder.json["nodes"]
        nodes[0]["translation"] = (place * FAR).tolist()  # the parent's scale comes after it
        nodes.append({"children": [0], "scale": [scale] * 3})
        builder.json["scenes"] = [{"nodes": [1]}]
        builder.save(path)
    return path


def pictures(avatar, **options):
    eyes = 6.0 * np.array([[0, 0, 1], [0.6, 0.3, 0.7], [-0.9, 0.1, -0.4]])
    cameras = look_at(eyes, np.zeros(3), np.array([0.0, 1.0, 0.0]))
    K = np.stack([intrinsics_from_fov(25.0, SIZE, SIZE)] * 3)
    return avatar.draw(K, cameras, SIZE, SIZE, **options)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    avatar, world_from_unit = in_unit_frame(load_avatar(write(tmp_path_factory.mktemp("ball") / "a.ply", 1.0, 0.0)))
    return avatar, world_from_unit, pictures(avatar, shading="lit")


@pytest.mark.parametrize("suffix", ["obj", "ply", "off", "glb"])
@pytest.mark.parametrize(("scale", "place"), PLACES)
def test_the_same_pictures(reference, tmp_path, suffix, scale, place):
    loaded = load_avatar(write(tmp_path / f"a.{suffix}", scale, place))
    assert loaded.warnings == [] and len(loaded.faces) == len(FACES)
    avatar, world_from_unit = in_unit_frame(loaded)
    expected_avatar, expected_from_unit, expected = reference
    np.testing.assert_allclose(avatar.vertices, expected_avatar.vertices, atol=1e-7 if place else 1e-12)
    found = pictures(avatar, shading="lit")
    for name, tolerance in (("image", 2e-4), ("alpha", 0.0), ("depth", 1e-5), ("normal", 1e-4)):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=tolerance, err_msg=name)
    # and back: the same place of the file's own coordinates, to double precision
    moved = scale * (expected_from_unit[:3, 3] + place * FAR)
    np.testing.assert_allclose(world_from_unit[:3, 3], moved, rtol=1e-14, atol=1e-12 * scale)
    np.testing.assert_allclose(world_from_unit[:3, :3], scale * expected_from_unit[:3, :3], rtol=1e-7)


@pytest.mark.parametrize(("scale", "place"), PLACES)
def test_cameras_of_the_unit_frame_see_the_same_pixels_from_the_world(reference, scale, place):
    world = scale * (VERTICES + place * FAR)
    unit, world_from_unit = in_unit_frame(replace(reference[0], parts=[replace(reference[0].parts[0], vertices=world)]))
    camera = look_at([3.0, 1.0, 5.0], np.zeros(3), [0.0, 1.0, 0.0])
    K = intrinsics_from_fov(25.0, SIZE, SIZE)
    inside, outside = project(unit.vertices, K, camera), project(world, K, move_camera(camera, world_from_unit))
    np.testing.assert_allclose(outside[:, :2], inside[:, :2], atol=1e-5)
    np.testing.assert_allclose(outside[:, 2] / world_from_unit[0, 0], inside[:, 2], rtol=1e-7)


def test_the_search_looks_at_the_same_places(reference):
    unit = reference[0]
    places = [(probe.part, *np.round(probe.center, 9), probe.turns) for probe in probes_of(unit)]
    assert len(places) > 100 and max(abs(value) for place in places for value in place[1:4]) <= 1.0
    np.testing.assert_allclose(unit.bounds.sum(axis=0), 0.0, atol=1e-12)
    assert np.abs(unit.vertices).max() == pytest.approx(1.0)


def test_single_precision_far_from_the_origin_is_warned_of(tmp_path):
    for place, warned in ((0.0, False), (1e-4, False), (1.0, True)):
        world = (10 * VERTICES + place * FAR).astype(np.float32)
        trimesh.Trimesh(world, FACES, process=False).export(tmp_path / "a.ply")
        warnings = load_avatar(tmp_path / "a.ply").warnings
        assert [("grid of 0.5 units" in text) for text in warnings] == [True] * warned, (place, warnings)
