"""glTF 2.0 and GLB: scene graph baked, skins and morph targets applied as the file stands, materials read.

Section numbers refer to the glTF 2.0 specification (Khronos Group, 2.0.1).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from flame_fitting.avatar.gltf_buffers import DamagedFileError, GltfBuffers
from flame_fitting.avatar.local_files import LocalFiles
from flame_fitting.avatar.mesh import MeshPart, srgb_from_linear, with_alpha
from flame_fitting.avatar.meshopt_buffers import MESHOPT

READABLE_EXTENSIONS = {
    *MESHOPT,
    "KHR_draco_mesh_compression",
    "KHR_mesh_quantization",
    "KHR_texture_transform",
    "KHR_materials_pbrSpecularGlossiness",
    "KHR_materials_unlit",
    "KHR_texture_basisu",
    "EXT_texture_webp",
}
WRAP = {33071: "clamp", 33648: "mirror", 10497: "repeat"}


@dataclass(frozen=True, eq=False)
class GltfPrimitive:
    """Triangles of a node."""

    node: int
    number: int
    """Among the primitives of the node's mesh."""
    part: MeshPart
    """Vertices in the file's order."""
    world_from_mesh: Float[np.ndarray, "N 4 4"]
    """What brings its positions into the world: one for all vertices, or, of a skin, one for each."""


def read_gltf(document: dict[str, Any], binary: bytes | None, files: LocalFiles, note: Callable[[str], None]):
    """Parts (list of MeshPart) of the default scene, in world coordinates."""
    return [found.part for found in read_primitives(document, binary, files, note)]


def read_primitives(
    document: dict[str, Any], binary: bytes | None, files: LocalFiles, note: Callable[[str], None]
) -> list[GltfPrimitive]:
    """The same with where in the document each part stands."""
    version = str(document.get("asset", {}).get("version", "2.0"))
    if not version.startswith("2"):
        raise DamagedFileError(f"glTF version {version}, only 2 is read")
    required = document.get("extensionsRequired", [])
    unknown = [e for e in required if e not in READABLE_EXTENSIONS and not e.startswith("KHR_materials_")]
    if unknown:
        note(f"required glTF extensions that are not read: {', '.join(unknown)}")
    return _Scene(document, GltfBuffers(document, binary, files), files, note).primitives()


def node_matrix(node: dict[str, Any]) -> np.ndarray:
    """Local transform (4, 4) of a node, from its matrix or its translation, rotation (x y z w) and scale."""
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    x, y, z, w = np.array(node.get("rotation", (0, 0, 0, 1)), dtype=np.float64)
    norm = x * x + y * y + z * z + w * w
    s = 2.0 / norm if norm > 0 else 0.0
    rotation = np.array(
        [
            [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
            [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
            [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.array(node.get("scale", (1, 1, 1)), dtype=np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


@dataclass
class _Scene:
    document: dict[str, Any]
    buffers: GltfBuffers
    files: LocalFiles
    note: Callable[[str], None]
    textures: dict[int, np.ndarray | None] = field(default_factory=dict)
    world: dict[int, np.ndarray] = field(default_factory=dict)
    skins: dict[int, np.ndarray] = field(default_factory=dict)

    def primitives(self) -> list[GltfPrimitive]:
        nodes = self.document.get("nodes", [])
        children = {child for node in nodes for child in node.get("children", [])}
        every_root = [index for index in range(len(nodes)) if index not in children]
        scenes = self.document.get("scenes", [])
        chosen = scenes[self.document.get("scene", 0)].get("nodes", []) if scenes else []
        # Joints may stand outside of the scene, so that every node gets its world transform.
        for root in [*every_root, *range(len(nodes))]:
            self._place(root)
        found = list(self._walk(chosen))
        if not found and chosen != every_root:
            found = list(self._walk(every_root))
        parts = [part for node in found for part in self._node_parts(node)]
        if self.document.get("animations"):
            self.note("animations ignored: the avatar is taken as it stands in the file")
        return parts

    def _place(self, root: int) -> None:
        stack = [(root, np.eye(4))]
        while stack:
            index, parent = stack.pop()
            if index in self.world:
                continue
            node = self.document["nodes"][index]
            self.world[index] = parent @ node_matrix(node)
            stack += [(child, self.world[index]) for child in node.get("children", [])]

    def _walk(self, roots: list[int]) -> Iterator[int]:
        stack, seen = list(reversed(roots)), set()
        while stack:
            index = stack.pop()
            if index in seen:
                continue
            seen.add(index)
            node = self.document["nodes"][index]
            if node.get("extensions", {}).get("KHR_node_visibility", {}).get("visible", True) is False:
                self.note(f"invisible node left out: {node.get('name', index)}")
                continue
            if "mesh" in node:
                yield index
            stack += reversed(node.get("children", []))

    def _node_parts(self, index: int) -> Iterator[GltfPrimitive]:
        node = self.document["nodes"][index]
        mesh = self.document["meshes"][node["mesh"]]
        name = node.get("name") or mesh.get("name") or f"mesh{node['mesh']}"
        if "EXT_mesh_gpu_instancing" in node.get("extensions", {}):
            self.note(f"instances of {name} (EXT_mesh_gpu_instancing) are not read")
        for number, primitive in enumerate(mesh["primitives"]):
            part = self._primitive(primitive, name, node.get("weights", mesh.get("weights", [])))
            if part is not None:
                faces, attributes = part
                matrices = self._transform(attributes, node, index)
                if (attributes.pop("_MIRRORED")).any():
                    faces = faces[:, ::-1].copy()
                yield GltfPrimitive(index, number, self._with_material(primitive, name, faces, attributes), matrices)

    def _primitive(
        self, primitive: dict[str, Any], name: str, weights: list[float]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
        mode = primitive.get("mode", 4)
        names = primitive.get("attributes", {})
        if mode not in (4, 5, 6) or "POSITION" not in names:
            self.note(f"points or lines left out ({name})")
            return None
        attributes: dict[str, np.ndarray] = {}
        faces = None
        draco = primitive.get("extensions", {}).get("KHR_draco_mesh_compression")
        if draco is not None:
            faces, attributes = self.buffers.draco(draco, names)
        for key, accessor in names.items():
            if key not in attributes and not key.startswith(("TANGENT", "_")):
                attributes[key] = self.buffers.accessor(accessor)
        if faces is None:
            if "indices" in primitive:
                order = self.buffers.accessor(primitive["indices"]).reshape(-1).astype(np.int64)
            else:
                order = np.arange(len(attributes["POSITION"]))
            faces = _triangles(order, mode)
        attributes["POSITION"] = attributes["POSITION"].astype(np.float64)
        self._morph(primitive, attributes, weights, name)
        return faces, attributes

    def _morph(self, primitive: dict[str, Any], attributes: dict, weights: list[float], name: str) -> None:
        """Adds the weighted morph targets (3.7.2.2). Absent weights are zero."""
        applied = 0
        for target, weight in zip(primitive.get("targets", []), weights, strict=False):
            if weight:
                for key in ("POSITION", "NORMAL", "TEXCOORD_0", "COLOR_0"):
                    if key in target and key in attributes:
                        attributes[key] = attributes[key] + float(weight) * self.buffers.accessor(target[key])
                applied += 1
        if applied:
            self.note(f"{applied} morph targets applied with the file's default weights ({name})")

    def _transform(self, attributes: dict, node: dict[str, Any], index: int) -> np.ndarray:
        """To world coordinates: by the node's transform, or by the skin, which replaces it (3.7.3.3); gives that."""
        if "skin" in node and "JOINTS_0" in attributes:
            matrices = self._skin_matrices(attributes, node["skin"])
            self.note("skins applied in the pose that the file stands in")
        else:
            matrices = self.world[index][None]
        linear = matrices[:, :3, :3]
        attributes["POSITION"] = _apply(linear, attributes["POSITION"]) + matrices[:, :3, 3]
        determinant = np.linalg.det(linear)
        if "NORMAL" in attributes:
            # The cofactor matrix turns normals right under any invertible transform, mirrored ones too.
            cofactor = np.stack([np.cross(linear[:, (k + 1) % 3], linear[:, (k + 2) % 3]) for k in range(3)], axis=1)
            normals = _apply(cofactor, attributes["NORMAL"].astype(np.float64)) * np.sign(determinant)[:, None]
            length = np.linalg.norm(normals, axis=1, keepdims=True)
            attributes["NORMAL"] = normals / np.where(length > 0, length, 1.0)
        # Faces of a mirrored mesh wind the other way round (3.7.4).
        attributes["_MIRRORED"] = np.array([np.median(determinant) < 0])
        return matrices

    def _skin_matrices(self, attributes: dict, skin_index: int) -> np.ndarray:
        if skin_index not in self.skins:
            skin = self.document["skins"][skin_index]
            joints = np.stack([self.world[joint] for joint in skin["joints"]])
            inverse_bind = np.broadcast_to(np.eye(4), joints.shape)
            if "inverseBindMatrices" in skin:
                stored = self.buffers.accessor(skin["inverseBindMatrices"])[: len(joints)]
                inverse_bind = stored.reshape(-1, 4, 4).transpose(0, 2, 1)
            self.skins[skin_index] = joints @ inverse_bind
        matrices = self.skins[skin_index]
        blended = np.zeros((len(attributes["POSITION"]), 4, 4))
        total = np.zeros(len(blended))
        for number in range(8):
            if f"JOINTS_{number}" not in attributes or f"WEIGHTS_{number}" not in attributes:
                break
            joints, weights = attributes[f"JOINTS_{number}"].astype(np.int64), attributes[f"WEIGHTS_{number}"]
            if weights.dtype.kind != "f":
                weights = weights / np.iinfo(weights.dtype).max
            for k in range(joints.shape[1]):
                blended += weights[:, k, None, None] * matrices[np.where(weights[:, k] != 0, joints[:, k], 0)]
                total += weights[:, k]
        blended /= np.where(total > 0, total, 1.0)[:, None, None]
        blended[total <= 0] = np.eye(4)
        return blended

    def _with_material(self, primitive: dict[str, Any], name: str, faces: np.ndarray, attributes: dict) -> MeshPart:
        material = self.document["materials"][primitive["material"]] if "material" in primitive else {}
        extensions = material.get("extensions", {})
        pbr = material.get("pbrMetallicRoughness", {})
        reference, factor = pbr.get("baseColorTexture"), pbr.get("baseColorFactor", (1, 1, 1, 1))
        glossy = extensions.get("KHR_materials_pbrSpecularGlossiness")
        if glossy is not None and reference is None:
            reference, factor = glossy.get("diffuseTexture"), glossy.get("diffuseFactor", (1, 1, 1, 1))
        if reference is None and "emissiveTexture" in material:
            # Scans and baked scenes often keep their only picture there.
            reference, factor = material["emissiveTexture"], (1, 1, 1, 1)
            self.note(f"no base colour, the emissive texture is taken ({name})")
        mode = str(material.get("alphaMode", "OPAQUE")).lower()
        cutoff = float(material.get("alphaCutoff", 0.5)) if mode == "mask" else 0.5
        alpha = float(factor[3])
        if extensions.get("KHR_materials_transmission", {}).get("transmissionFactor", 0.0) >= 0.5:
            mode, alpha = "blend", 0.0
        red, green, blue = (float(c) for c in srgb_from_linear(np.array(factor[:3], dtype=np.float64)))
        part = MeshPart(
            vertices=attributes["POSITION"],
            faces=faces,
            name=name,
            normals=attributes.get("NORMAL"),
            vertex_colors=self._colors(attributes, name),
            base_color=(red, green, blue, alpha),
            alpha_mode=mode if mode in ("mask", "blend") else "opaque",
            alpha_cutoff=cutoff,
            double_sided=bool(material.get("doubleSided", False)),
        )
        if reference is not None:
            self._add_texture(part, reference, attributes)
        return part

    def _colors(self, attributes: dict, name: str) -> np.ndarray | None:
        colors = attributes.get("COLOR_0")
        if colors is None or colors.shape[1] not in (3, 4):
            return None
        if colors.dtype.kind != "f":
            colors = colors / np.iinfo(colors.dtype).max
        if colors[:, :3].max(initial=0.0) <= 0.0:
            self.note(f"vertex colours are black everywhere and ignored ({name})")
            return None
        colors = with_alpha(colors)
        # COLOR_0 is linear (3.7.2.1).
        return np.concatenate([srgb_from_linear(colors[:, :3]), colors[:, 3:]], axis=1)

    def _add_texture(self, part: MeshPart, reference: dict[str, Any], attributes: dict) -> None:
        transform = reference.get("extensions", {}).get("KHR_texture_transform", {})
        uv = attributes.get(f"TEXCOORD_{transform.get('texCoord', reference.get('texCoord', 0))}")
        if uv is None:
            self.note(f"texture without texture coordinates ignored ({part.name})")
            return
        uv = uv.astype(np.float64)
        if transform:
            angle = transform.get("rotation", 0.0)
            cosine, sine = np.cos(angle), np.sin(angle)
            turned = uv * np.array(transform.get("scale", (1.0, 1.0))) @ np.array([[cosine, -sine], [sine, cosine]])
            uv = turned + np.array(transform.get("offset", (0.0, 0.0)))
        entry = self.document["textures"][reference["index"]]
        webp = entry.get("extensions", {}).get("EXT_texture_webp", {}).get("source")
        source = webp if webp is not None else entry.get("source")
        if source is None:
            self.files.without_color[f"texture {reference['index']}"] = _why_without_image(entry, self.files)
            return
        if source not in self.textures:
            self.textures[source] = self.buffers.image(source, self.note)
        if self.textures[source] is None:
            return
        sampler = self.document["samplers"][entry["sampler"]] if "sampler" in entry else {}
        part.texture = self.textures[source]
        # glTF puts (0, 0) at the top-left of the picture (3.8.3), parts at the bottom-left.
        part.uv = np.stack([uv[:, 0], 1.0 - uv[:, 1]], axis=1)
        part.wrap = (WRAP.get(sampler.get("wrapS", 10497), "repeat"), WRAP.get(sampler.get("wrapT", 10497), "repeat"))


def _why_without_image(texture: dict[str, Any], files: LocalFiles) -> str:
    extensions = ", ".join(texture.get("extensions", {}))
    if "KHR_texture_basisu" in extensions:
        stem = files.main.stem
        unpack = f"npx @gltf-transform/cli ktxdecompress {files.main.name} {stem}_unpacked.glb"
        return f"KTX2-compressed, {extensions}; KTX-Software and glTF Transform unpack it: {unpack}"
    return f"only as {extensions}, which is not read" if extensions else "it names no image"


def _triangles(order: np.ndarray, mode: int) -> np.ndarray:
    """Triangles of a list (4), strip (5) or fan (6)."""
    if mode == 4:
        return order[: len(order) // 3 * 3].reshape(-1, 3)
    if len(order) < 3:
        return np.zeros((0, 3), dtype=np.int64)
    if mode == 6:
        return np.stack([np.full(len(order) - 2, order[0]), order[1:-1], order[2:]], axis=1)
    strip = np.stack([order[:-2], order[1:-1], order[2:]], axis=1)
    strip[1::2] = strip[1::2, [1, 0, 2]]
    return strip


def _apply(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # infinite vertices are reported later
        return np.matmul(matrices, vectors[:, :, None])[:, :, 0]
