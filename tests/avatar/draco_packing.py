"""Packs the meshes of a .glb with Draco, as glTF tools do.

python -m tests.avatar.draco_packing IN.glb OUT.glb
"""

import sys
from pathlib import Path

import DracoPy
import numpy as np

from flame_fitting.avatar.gltf_buffers import GltfBuffers, read_container
from flame_fitting.avatar.local_files import LocalFiles
from tests.avatar.glb_builder import GlbBuilder

EXTENSION = "KHR_draco_mesh_compression"
NAMES = {0: "POSITION", 3: "TEXCOORD_0"}
"""By Draco's GeometryAttribute::Type."""


def pack(source: Path, target: Path) -> Path:
    """Positions and texture coordinates of each primitive packed, its other attributes left out; pictures kept."""
    document, binary = read_container(source.read_bytes())
    old, new = GltfBuffers(document, binary, LocalFiles(source)), GlbBuilder()
    for image in document.get("images", []):
        image["bufferView"] = new.view(old.view(image["bufferView"])[0])
    for primitive in (primitive for mesh in document["meshes"] for primitive in mesh["primitives"]):
        names = primitive["attributes"]
        packed = DracoPy.encode(
            old.accessor(names["POSITION"]).astype(np.float32),
            old.accessor(primitive["indices"]).reshape(-1, 3).astype(np.uint32),
            tex_coord=old.accessor(names["TEXCOORD_0"]) if "TEXCOORD_0" in names else None,
        )
        content = DracoPy.decode(packed)
        ids = {NAMES[attribute["attribute_type"]]: attribute["unique_id"] for attribute in content.attributes}
        primitive["extensions"] = {EXTENSION: {"bufferView": new.view(packed), "attributes": ids}}
        primitive["attributes"] = {name: names[name] for name in ids}
        for name in ids:
            document["accessors"][names[name]]["count"] = len(content.points)
        document["accessors"][primitive["indices"]]["count"] = content.faces.size
    for accessor in document["accessors"]:
        accessor.pop("bufferView", None)
        accessor.pop("byteOffset", None)
    new.json = document | {"bufferViews": new.json["bufferViews"], "buffers": []}
    new.json["extensionsUsed"] = new.json["extensionsRequired"] = [EXTENSION]
    return new.save(target)


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
