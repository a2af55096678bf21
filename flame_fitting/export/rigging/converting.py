"""An avatar of another format as a glTF document: metres, Y up, facing +Z, its materials as the renderer sees them."""

import io

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from PIL import Image
from pygltflib import Attributes, Material, Mesh, Node, PbrMetallicRoughness, Primitive, Scene, TextureInfo
from scipy.spatial.transform import Rotation

from flame_fitting.avatar.gltf import WRAP
from flame_fitting.avatar.mesh import MeshPart, vertices_of
from flame_fitting.avatar.normals import angle_weighted_normals
from flame_fitting.capture.camera import transform_points
from flame_fitting.capture.color_correction import srgb_to_linear
from flame_fitting.capture.similarity import decompose_similarity, similarity_matrix
from flame_fitting.export.gltf_document import GltfDocument, placing
from flame_fitting.fit.scale import METRES_PER_UNIT

_UNIT = 0.25
"""How far, relatively, a fit's scale may be from a common unit that a file is taken to be in: some heads are large."""


def gltf_from_avatar(head_from_world: Float[ndarray, "4 4"]) -> Float[ndarray, "4 4"]:
    """Turns an avatar's axes, none of them aslant, so that it stands upright and faces +Z, and its unit into metres."""
    scale, rotation, _ = decompose_similarity(head_from_world)
    turns = Rotation.create_group("O").as_matrix()
    upright = turns[np.argmax(np.einsum("nij,ij->n", turns, rotation))]
    unit = min(METRES_PER_UNIT.values(), key=lambda size: abs(np.log(scale / size)))
    return similarity_matrix(unit if abs(scale / unit - 1) < _UNIT else scale, upright, np.zeros(3))


def converted(parts: list[MeshPart], matrix: Float[ndarray, "4 4"]) -> GltfDocument:
    """The parts, brought to where `matrix` (a similarity) takes them; one node and mesh for each."""
    document = GltfDocument()
    gltf = document.gltf
    # single precision is finest about the origin
    middle = transform_points(matrix, vertices_of(parts).mean(axis=0)[None])[0].round(3)
    place = np.eye(4)
    place[:3, 3] = middle
    for part in parts:
        primitive = Primitive(
            attributes=_attributes(document, part, np.linalg.inv(place) @ matrix), indices=document.indices(part.faces)
        )
        primitive.material = _material(document, part)
        gltf.meshes.append(Mesh(name=part.name or None, primitives=[primitive]))
        document.node(Node(name=part.name or "avatar", mesh=len(gltf.meshes) - 1, **placing(place)))
    gltf.scenes, gltf.scene = [Scene(nodes=list(range(len(parts))))], 0
    return document


def _attributes(document: GltfDocument, part: MeshPart, matrix: Float[ndarray, "4 4"]) -> Attributes:
    normals = part.normals if part.normals is not None else angle_weighted_normals(part.vertices, part.faces)
    turned = normals @ matrix[:3, :3].T
    length = np.linalg.norm(turned, axis=1, keepdims=True)
    turned = np.where(length > 1e-12, turned / np.maximum(length, 1e-12), (0.0, 0.0, 1.0))
    out = Attributes(
        POSITION=document.accessor(transform_points(matrix, part.vertices).astype(np.float32), bounds=True),
        NORMAL=document.accessor(turned.astype(np.float32)),
    )
    if part.uv is not None:
        # glTF counts from the picture's top
        out.TEXCOORD_0 = document.accessor((part.uv * (1, -1) + (0, 1)).astype(np.float32))
    if part.vertex_colors is not None:
        colors = part.vertex_colors.copy()
        colors[:, :3] = srgb_to_linear(colors[:, :3])
        out.COLOR_0 = document.accessor(colors.astype(np.float32))
    return out


def _material(document: GltfDocument, part: MeshPart) -> int:
    color = [*(float(c) for c in srgb_to_linear(np.array(part.base_color[:3]))), float(part.base_color[3])]
    shown = PbrMetallicRoughness(baseColorFactor=color, metallicFactor=0.0, roughnessFactor=0.8)
    if part.texture is not None and part.uv is not None:
        stream = io.BytesIO()
        opaque = part.alpha_mode == "opaque"
        Image.fromarray(part.texture[..., :3] if opaque else part.texture).save(stream, format="PNG", compress_level=3)
        shown.baseColorTexture = TextureInfo(index=document.texture(stream.getvalue(), "image/png", part.name))
        sampler, numbers = document.gltf.samplers[-1], {word: number for number, word in WRAP.items()}
        sampler.wrapS, sampler.wrapT = (numbers[wrap] for wrap in part.wrap)
    material = Material(name=part.name or None, pbrMetallicRoughness=shown, doubleSided=part.double_sided)
    material.alphaMode = part.alpha_mode.upper()
    if part.alpha_mode == "mask":
        material.alphaCutoff = part.alpha_cutoff
    document.gltf.materials.append(material)
    return len(document.gltf.materials) - 1
