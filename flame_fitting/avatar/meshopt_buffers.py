"""glTF buffer views under EXT_meshopt_compression and KHR_meshopt_compression, decoded with meshoptimizer.

What the extensions ask of a buffer view ("JSON schema updates") is checked here before the native decoder sees it.
"""

from typing import Any

MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")
MAX_BYTES = 1 << 30
"""Largest decoded buffer view."""
# No stream says more per byte than this. Attributes: a control code of 2 bits stands for up to 256 elements (KHR's
# version 1 of the stream), so 1024 bytes; indices: a byte stands for one triangle or one index at most.
_MAX_RATIO = 1024
_INDICES_PER_BYTE = {"TRIANGLES": 3, "INDICES": 1}
_STRIDES = {"OCTAHEDRAL": (4, 8), "COLOR": (4, 8), "QUATERNION": (8,)}
_FILTERS = {
    "EXT_meshopt_compression": ("NONE", "OCTAHEDRAL", "QUATERNION", "EXPONENTIAL"),
    "KHR_meshopt_compression": ("NONE", "OCTAHEDRAL", "QUATERNION", "EXPONENTIAL", "COLOR"),
}


class MeshoptError(ValueError):
    """The compressed buffer view is damaged."""


def compression_of(view: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Name and content of the meshopt extension of a buffer view, if it has one."""
    extensions = view.get("extensions") or {}
    return next(((name, extensions[name]) for name in MESHOPT if name in extensions), None)


def decode_view(name: str, extension: dict[str, Any], compressed: bytes) -> bytes:
    """The decompressed bytes of a buffer view (`count` times `byteStride`), filter undone. Raises MeshoptError."""
    count, stride = _whole(extension, "count"), _whole(extension, "byteStride")
    mode, filter_name = extension.get("mode"), extension.get("filter", "NONE")
    if count == 0:
        return b""
    if mode == "ATTRIBUTES":
        possible = 0 < stride <= 256 and stride % 4 == 0 and filter_name in _FILTERS[name]
        possible &= stride in _STRIDES.get(filter_name, (stride,))
        enough = count * stride <= _MAX_RATIO * len(compressed)
    elif mode in _INDICES_PER_BYTE:
        possible = stride in (2, 4) and filter_name == "NONE" and (mode != "TRIANGLES" or count % 3 == 0)
        enough = count <= _INDICES_PER_BYTE[mode] * len(compressed)
    else:
        raise MeshoptError(f"meshopt mode {mode!r} is not known")
    if not possible:
        raise MeshoptError(f"meshopt {mode} of {count} elements of {stride} bytes with filter {filter_name!r}")
    if count * stride > MAX_BYTES:
        raise MeshoptError(f"a meshopt buffer view asks for {count * stride} bytes")
    if not enough:
        raise MeshoptError(
            f"{len(compressed)} bytes of meshopt data cannot hold {count} elements; the file is cut short"
        )
    import meshopt

    try:
        decoded = meshopt.decode_gltf_buffer(compressed, count, stride, mode, filter_name)
    except (ValueError, RuntimeError) as error:
        raise MeshoptError(f"its meshopt data cannot be decoded ({error})") from None
    return decoded.tobytes()


def _whole(extension: dict[str, Any], key: str) -> int:
    value = extension.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise MeshoptError(f"a meshopt buffer view has {key} {value!r}")
    return value
