"""What is written of skins, morph targets and animations stands where readers of their own find it."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from pygltflib import GLTF2, Attributes, Mesh, Node, Primitive, Scene
from scipy.spatial.transform import Rotation

from flame_fitting.avatar.loading import load_avatar
from flame_fitting.export.gltf_document import GltfDocument, placing
from flame_fitting.export.gltf_rigs import Joint, Track, add_animation, add_skin, influences, morph_target, name_targets

POINTS = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
FACES = np.arange(39).reshape(-1, 3)


def json_of(content: bytes) -> dict:
    length = struct.unpack("<I", content[12:16])[0]
    return json.loads(content[20 : 20 + length])


def rigged(weights: np.ndarray, bind: np.ndarray, local: np.ndarray, moved: np.ndarray, amount: float) -> GltfDocument:
    """Points on a chain of joints, with one morph target beside one that does nothing."""
    document = GltfDocument()
    attributes = Attributes(POSITION=document.accessor(POINTS, bounds=True))
    (attributes.JOINTS_0, attributes.WEIGHTS_0), *_ = influences(weights)
    attributes.JOINTS_0, attributes.WEIGHTS_0 = (
        document.accessor(a) for a in (attributes.JOINTS_0, attributes.WEIGHTS_0)
    )
    attributes._NUMBER = document.accessor(np.arange(len(POINTS), dtype=np.uint16))
    targets = [morph_target(document, moved, moved), morph_target(document, 0 * moved)]
    mesh = Mesh(primitives=[Primitive(attributes=attributes, indices=document.indices(FACES), targets=targets)])
    name_targets(mesh, ["moved", "still"], [amount, 1.0])
    document.gltf.meshes.append(mesh)
    joints = [Joint(f"joint{k}", k - 1, bind[k], local[k]) for k in range(len(bind))]
    skin, nodes = add_skin(document, joints, "skin")
    body = document.node(Node(mesh=0, skin=skin, name="body"))
    document.gltf.scenes, document.gltf.scene = [Scene(nodes=[nodes[0], body])], 0
    return document


@pytest.fixture
def chain() -> tuple[np.ndarray, ...]:
    """Weights, bind and local matrices, displacements of a few points."""
    rng = np.random.default_rng(1)
    local = np.tile(np.eye(4), (6, 1, 1))
    local[:, :3, :3] = Rotation.from_rotvec(rng.normal(size=(6, 3))).as_matrix()
    local[0, :3, :3] *= 2.5
    local[:, :3, 3] = rng.normal(size=(6, 3))
    bind = np.tile(np.eye(4), (6, 1, 1))
    bind[:, :3, 3] = rng.normal(size=(6, 3))
    weights = rng.uniform(size=(len(POINTS), 6)) * (rng.uniform(size=(len(POINTS), 6)) > 0.5)
    weights[:, 3] += 0.1
    moved = np.zeros_like(POINTS)
    moved[::7] = rng.normal(size=moved[::7].shape)
    return weights, bind, local, moved


def test_a_skin_with_morphs_is_read_as_it_was_meant(chain, tmp_path: Path) -> None:
    weights, bind, local, moved = chain
    kept = np.where(weights >= np.sort(weights, axis=1)[:, [-4]], weights, 0)
    (tmp_path / "a.glb").write_bytes(rigged(weights, bind, local, moved, 0.5).glb())
    world = [local[0]]
    for k in range(1, 6):
        world.append(world[-1] @ local[k])
    carried = np.stack(world) @ np.linalg.inv(bind)
    points = POINTS + 0.5 * moved
    each = np.einsum("jab,vb->vja", carried[:, :3, :3], points) + carried[:, :3, 3]
    expected = np.einsum("vj,vja->va", kept / kept.sum(1, keepdims=True), each)
    found = load_avatar(tmp_path / "a.glb").vertices
    np.testing.assert_allclose(found[: FACES.max() + 1], expected[: FACES.max() + 1], atol=1e-4)


def test_what_does_not_move_is_left_out(chain) -> None:
    weights, bind, local, moved = chain
    document = json_of(rigged(weights, bind, local, moved, 0.0).glb())
    targets = document["meshes"][0]["primitives"][0]["targets"]
    some, none = (document["accessors"][target["POSITION"]] for target in targets)
    assert "bufferView" not in some and some["sparse"]["count"] == len(moved[::7]) and some["count"] == len(moved)
    np.testing.assert_array_equal(some["max"], moved.max(0).clip(0))
    assert none["sparse"]["count"] == 1 and none["min"] == [0, 0, 0]
    assert document["meshes"][0]["extras"]["targetNames"] == ["moved", "still"]
    dense = GltfDocument()
    dense.sparse_accessor(np.ones((5, 3), dtype=np.float32))
    assert "sparse" not in json_of(dense.glb())["accessors"][0]


def test_elements_of_attributes_begin_at_four_bytes(chain) -> None:
    document = json_of(rigged(*chain, 0.0).glb())
    number = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["_NUMBER"]]
    assert document["bufferViews"][number["bufferView"]]["byteStride"] == 4 and number["componentType"] == 5123


def test_a_document_that_is_there_keeps_what_it_has(chain, tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(rigged(*chain, 0.25).glb())
    before = load_avatar(tmp_path / "a.glb").vertices
    document = GltfDocument(GLTF2.load(str(tmp_path / "a.glb")))
    turns = Rotation.from_rotvec([[0, 0, 0], [0, 0, 1]]).as_quat()
    tracks = [Track(1, "rotation", turns), Track(6, "weights", np.array([[0.0, 1], [0.5, 0]]))]
    add_animation(document, "nod", np.array([0.0, 0.04]), tracks)
    content = document.glb()
    (tmp_path / "b.glb").write_bytes(content)
    np.testing.assert_array_equal(load_avatar(tmp_path / "b.glb").vertices, before)
    found = json_of(content)
    times, weights = (found["accessors"][found["animations"][0]["samplers"][1][key]] for key in ("input", "output"))
    assert times["max"] == [pytest.approx(0.04)] and weights["count"] == 4 and weights["type"] == "SCALAR"


def test_placing_leaves_out_what_does_nothing() -> None:
    assert placing(np.eye(4)) == {}
    matrix = np.diag([2.0, 2, 2, 1])
    matrix[:3, 3] = 1, 2, 3
    assert placing(matrix) == {"translation": [1, 2, 3], "scale": [pytest.approx(2)] * 3}
