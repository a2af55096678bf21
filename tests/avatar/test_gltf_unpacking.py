"""A document that was unpacked says the same as before, in plain numbers in one buffer."""

from pathlib import Path

import numpy as np
import pytest

from flame_fitting.avatar.gltf import read_gltf
from flame_fitting.avatar.gltf_buffers import GltfBuffers, read_container
from flame_fitting.avatar.gltf_unpacking import unpacked
from flame_fitting.avatar.local_files import LocalFiles

PACKED = ("lps_head/LeePerrySmith_draco.glb", "valid_avatars/original/White_M_1_Casual.meshopt.glb")


@pytest.mark.parametrize("name", PACKED)
def test_packed_files(test_data: Path, name: str) -> None:
    path = test_data / "avatars" / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    document, binary = read_container(path.read_bytes())
    files = LocalFiles(path)
    before = read_gltf(document, binary, files, lambda text: None)
    plain, blob = unpacked(document, GltfBuffers(document, binary, files))
    assert len(plain["buffers"]) == 1 and plain["buffers"][0]["byteLength"] == len(blob)
    said = str(plain)
    assert "draco" not in said and "meshopt" not in said and "'uri'" not in said
    after = read_gltf(plain, blob, LocalFiles(Path("nowhere")), lambda text: None)
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one.vertices, other.vertices, atol=1e-6)
        np.testing.assert_array_equal(one.faces, other.faces)
        if one.texture is not None:
            np.testing.assert_array_equal(one.texture, other.texture)
    for entry in plain["accessors"]:
        if "min" in entry and entry["componentType"] == 5126:
            values = GltfBuffers(plain, blob, files).accessor(plain["accessors"].index(entry))
            np.testing.assert_array_equal(values.min(axis=0).astype(np.float32), np.float32(entry["min"]))
