"""glTF compressed with meshoptimizer, made here with the encoders of the same package."""

import json

import meshopt
import numpy as np
import pytest
import trimesh

from flame_fitting.avatar.loading import load_avatar
from flame_fitting.avatar.meshopt_buffers import MESHOPT, MeshoptError, decode_view
from flame_fitting.errors import InputError
from tests.avatar.glb_builder import GlbBuilder

SPHERE = trimesh.creation.icosphere(subdivisions=2)
POSITIONS, FACES = np.asarray(SPHERE.vertices, dtype=np.float32), np.asarray(SPHERE.faces)


class MeshoptBuilder(GlbBuilder):
    """Puts compressed buffer views beside an empty fallback buffer."""

    def __init__(self, extension: str = MESHOPT[0], required: bool = True) -> None:
        super().__init__()
        self.extension, self.size = extension, 0
        self.json["extensionsUsed"] = [extension]
        if required:
            self.json["extensionsRequired"] = [extension]

    def compressed(self, rows: np.ndarray, mode: str, filter: str | None = None, version: int = 0) -> int:
        encoded = meshopt.encode_gltf_buffer(rows, mode, version)
        stride = rows.nbytes // len(rows)
        holder = self.view(encoded)
        source = self.json["bufferViews"][holder]
        extension = {
            "buffer": 0,
            "byteOffset": source["byteOffset"],
            "byteLength": len(encoded),
            "byteStride": stride,
            "count": len(rows),
            "mode": mode,
        }
        extension |= {"filter": filter} if filter else {}
        self.json["bufferViews"][holder] = {
            "buffer": 1,
            "byteOffset": self.size,
            "byteLength": rows.nbytes,
            "extensions": {self.extension: extension},
        }
        if mode == "ATTRIBUTES":
            self.json["bufferViews"][holder]["byteStride"] = stride
        self.size += rows.nbytes
        return holder

    def bytes(self) -> bytes:
        fallback = {"byteLength": self.size, "extensions": {self.extension: {"fallback": True}}}
        self.binary += b"\0" * (-len(self.binary) % 4)
        self.json["buffers"] = [{"byteLength": len(self.binary)}, fallback]
        return super().bytes()


def sphere(extension: str = MESHOPT[0], mode: str = "TRIANGLES", index: type = np.uint16, version: int = 0):
    """Positions by the exponential filter, normals by the octahedral one, colours without a filter."""
    builder = MeshoptBuilder(extension)
    normals = np.concatenate([POSITIONS, np.ones((len(POSITIONS), 1))], axis=1)
    oct_rows = meshopt.encode_filter_oct(normals, 4, 8)
    exp_rows = meshopt.encode_filter_exp(POSITIONS, 20)
    colors = np.round(255 * np.abs(np.concatenate([POSITIONS, np.ones((len(POSITIONS), 1))], axis=1))).astype(np.uint8)
    flat = FACES.reshape(-1).astype(index)
    count = len(POSITIONS)
    position = builder.accessor(POSITIONS, view=builder.compressed(exp_rows, "ATTRIBUTES", "EXPONENTIAL", version))
    normal = builder.accessor(
        np.zeros((count, 3), np.int8), True, view=builder.compressed(oct_rows, "ATTRIBUTES", "OCTAHEDRAL", version)
    )
    color = builder.accessor(colors, True, view=builder.compressed(colors, "ATTRIBUTES", version=version))
    indices = builder.accessor(flat, view=builder.compressed(flat, mode))
    attributes = {"POSITION": position, "NORMAL": normal, "COLOR_0": color}
    builder.scene({"attributes": attributes, "indices": indices})
    return builder


@pytest.mark.parametrize(("extension", "version"), [(MESHOPT[0], 0), (MESHOPT[1], 0), (MESHOPT[1], 1)])
@pytest.mark.parametrize("mode", ["TRIANGLES", "INDICES"])
@pytest.mark.parametrize("index", [np.uint16, np.uint32])
def test_attributes_filters_and_indices(tmp_path, extension, version, mode, index):
    path = sphere(extension, mode, index, version).save(tmp_path / "a.glb")
    avatar = load_avatar(path)
    part = avatar.parts[0]
    corners = np.sort(part.vertices[part.faces].mean(axis=1), axis=0)
    np.testing.assert_allclose(corners, np.sort(POSITIONS[FACES].mean(axis=1), axis=0), atol=1e-5)
    np.testing.assert_allclose(part.normals, part.vertices, atol=0.03)
    assert part.vertex_colors is not None and avatar.has_color
    if mode == "INDICES":  # keeps the order
        np.testing.assert_array_equal(part.faces, FACES)
    assert avatar.notes == [] and avatar.warnings == []


def test_quaternion_and_color_filters():
    rng = np.random.default_rng(0)
    turns = rng.normal(size=(37, 4)).astype(np.float32)
    turns /= np.linalg.norm(turns, axis=1, keepdims=True)
    rows = meshopt.encode_filter_quat(turns, 8, 16)
    fields = {"count": 37, "byteStride": 8, "mode": "ATTRIBUTES"}
    packed = meshopt.encode_gltf_buffer(rows, "ATTRIBUTES")
    back = (
        np.frombuffer(decode_view(MESHOPT[0], fields | {"filter": "QUATERNION"}, packed), "<i2").reshape(-1, 4) / 32767
    )
    np.testing.assert_allclose(np.abs((back * turns).sum(axis=1)), 1.0, atol=1e-3)
    colors = rng.uniform(size=(37, 4)).astype(np.float32)
    packed = meshopt.encode_gltf_buffer(meshopt.encode_filter_color(colors, 8, 16), "ATTRIBUTES")
    back = np.frombuffer(decode_view(MESHOPT[1], fields | {"filter": "COLOR"}, packed), "<u2").reshape(-1, 4) / 65535
    np.testing.assert_allclose(back, colors, atol=1e-3)
    with pytest.raises(MeshoptError):  # only in the Khronos extension
        decode_view(MESHOPT[0], fields | {"filter": "COLOR"}, packed)


def test_a_fallback_buffer_is_not_read(tmp_path):
    """What a loader without the extension would read may be a file that nobody shipped."""
    builder = sphere()
    document = json.loads(json.dumps(builder.json))
    binary = builder.binary
    document["buffers"] = [
        {"byteLength": len(binary), "uri": "a.bin"},
        {"byteLength": builder.size, "uri": "gone.bin", "extensions": {MESHOPT[0]: {"fallback": True}}},
    ]
    (tmp_path / "a.bin").write_bytes(binary)
    (tmp_path / "a.gltf").write_text(json.dumps(document))
    assert len(load_avatar(tmp_path / "a.gltf").faces) == len(FACES)


@pytest.mark.parametrize(
    ("view", "change"),
    [
        (0, {"count": 10**15}),
        (0, {"count": -1}),
        (0, {"count": 162.5}),
        (0, {"count": True}),
        (0, {"count": 10**6, "byteStride": 256}),
        (0, {"byteStride": 10}),
        (0, {"byteStride": 0}),
        (0, {"byteStride": 512}),
        (0, {"byteStride": 8}),
        (0, {"filter": "QUATERNION"}),
        (0, {"filter": "ZIP"}),
        (0, {"mode": "POINTS"}),
        (0, {"mode": None}),
        (0, {"byteLength": 10**9}),
        (0, {"byteLength": 3}),
        (0, {"byteOffset": -4}),
        (0, {"buffer": 7}),
        (0, {"buffer": 1}),
        (1, {"byteStride": 12}),
        (3, {"count": 10**9}),
        (3, {"count": 961}),
        (3, {"byteStride": 3}),
        (3, {"filter": "OCTAHEDRAL"}),
        (3, {"mode": "INDICES"}),
        (3, {"byteLength": 20}),
    ],
)
def test_impossible_numbers(tmp_path, view, change):
    builder = sphere()
    builder.json["bufferViews"][view]["extensions"][MESHOPT[0]] |= change
    with pytest.raises(InputError, match=r"a\.glb"):
        load_avatar(builder.save(tmp_path / "a.glb"))


def test_a_view_that_is_larger_than_its_data(tmp_path):
    builder = sphere()
    builder.json["bufferViews"][0]["byteLength"] += 12
    with pytest.raises(InputError, match="buffer view 0 has"):
        load_avatar(builder.save(tmp_path / "a.glb"))


def test_flipped_bytes_end_in_an_input_error_or_in_another_mesh(tmp_path):
    rng = np.random.default_rng(0)
    builder = sphere()
    binary = np.frombuffer(builder.binary, np.uint8)
    for _ in range(60):
        damaged = binary.copy()
        damaged[rng.integers(0, len(binary), 6)] = rng.integers(0, 256, 6)
        builder.binary = damaged.tobytes()
        try:
            load_avatar(builder.save(tmp_path / "a.glb"))
        except InputError as error:
            assert "a.glb" in str(error)


def test_a_vrm_is_a_glb(tmp_path):
    builder = sphere()
    builder.json["extensionsUsed"] += ["VRMC_vrm"]
    builder.json["extensions"] = {"VRMC_vrm": {"specVersion": "1.0", "meta": {"name": "somebody"}}}
    avatar = load_avatar(builder.save(tmp_path / "a.VRM"))
    assert avatar.format == "vrm" and len(avatar.faces) == len(FACES)
