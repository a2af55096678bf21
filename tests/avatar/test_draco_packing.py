"""A textured avatar packed with Draco is the same avatar: surface, texture coordinates, picture."""

from pathlib import Path

import numpy as np

from flame_fitting.avatar.gltf_buffers import read_container
from flame_fitting.avatar.loading import load_avatar
from tests.avatar.draco_packing import EXTENSION, pack
from tests.avatar.glb_builder import QUAD, textured_quad


def test_a_packed_avatar_is_the_same_avatar(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    plain = textured_quad(pixels).save(tmp_path / "plain.glb")
    packed = pack(plain, tmp_path / "packed.glb")
    document, _ = read_container(packed.read_bytes())
    assert document["extensionsRequired"] == [EXTENSION]
    assert not any("bufferView" in accessor for accessor in document["accessors"]), "nothing is there twice"
    expected, found = load_avatar(plain).parts[0], load_avatar(packed).parts[0]
    assert found.texture is not None and np.array_equal(found.texture, expected.texture)
    assert found.uv is not None
    order = np.linalg.norm(QUAD[:, None] - found.vertices[None], axis=2).argmin(1)
    np.testing.assert_allclose(found.vertices[order], QUAD, atol=1e-3)
    np.testing.assert_allclose(found.uv[order], expected.uv, atol=1e-3)
    assert len(found.vertices) == len(QUAD) and len(found.faces) == len(expected.faces)
