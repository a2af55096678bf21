"""A textured triangle mesh as a binary glTF file."""

import io

from jaxtyping import Float, Int, UInt8
from numpy import ndarray


def glb_bytes(
    vertices: Float[ndarray, "N 3"],
    faces: Int[ndarray, "M 3"],
    uv: Float[ndarray, "N 2"],
    picture: UInt8[ndarray, "h w 3"],
) -> bytes:
    """One mesh, one matt material; `uv` has v = 0 at the picture's bottom. The picture is stored as JPEG."""
    import trimesh
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="JPEG", quality=93, subsampling=0)
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.open(stream), metallicFactor=0.0, roughnessFactor=0.9
    )
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    content = mesh.export(file_type="glb")
    assert isinstance(content, bytes)
    return content
