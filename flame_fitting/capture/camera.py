"""Pinhole cameras. Pure functions on float64 arrays, batched over leading dimensions.

In memory a camera is `K` (3, 3) in pixels and `world_to_camera` (4, 4) with OpenCV axes (x right, y down, z forward).
Pixels are continuous, origin at the top-left corner of the top-left pixel, pixel centres at +0.5.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


def look_at(eye: ArrayLike, target: ArrayLike, up: ArrayLike) -> Array:
    """World-to-camera (..., 4, 4) of a camera at `eye` that looks at `target` with `up` toward the image's top."""
    eye_, target_, up_ = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (eye, target, up)))
    forward = _unit(target_ - eye_)
    right = _unit(np.cross(forward, up_))
    down = np.cross(forward, right)
    rotation = np.stack([right, down, forward], axis=-2)
    out = np.zeros((*eye_.shape[:-1], 4, 4))
    out[..., :3, :3] = rotation
    out[..., :3, 3] = -np.einsum("...ij,...j->...i", rotation, eye_)
    out[..., 3, 3] = 1.0
    return out


def intrinsics_from_fov(fov_y_deg: float, width: int, height: int) -> Array:
    """K (3, 3) of a camera with square pixels, centred principal point and a vertical field of view in degrees."""
    return centred_intrinsics(0.5 * height / np.tan(0.5 * np.radians(fov_y_deg)), width, height)


def centred_intrinsics(focal: float, width: int, height: int) -> Array:
    """K (3, 3) of a camera with square pixels, centred principal point and a focal length in px."""
    return np.array([[focal, 0.0, 0.5 * width], [0.0, focal, 0.5 * height], [0.0, 0.0, 1.0]])


def scaled_intrinsics(K: ArrayLike, old: tuple[int, int], new: tuple[int, int]) -> Array:
    """K (..., 3, 3) of a picture that was brought from one size (H, W) to another, its borders kept."""
    return np.diag([new[1] / old[1], new[0] / old[0], 1.0]) @ np.asarray(K, dtype=np.float64)


def transform_points(matrix: ArrayLike, points: ArrayLike) -> Array:
    """Applies (..., 4, 4) affine matrices to points (..., N, 3)."""
    matrix_, points_ = np.asarray(matrix, dtype=np.float64), np.asarray(points, dtype=np.float64)
    return points_ @ np.swapaxes(matrix_[..., :3, :3], -1, -2) + matrix_[..., None, :3, 3]


def project(points: ArrayLike, K: ArrayLike, world_to_camera: ArrayLike) -> Array:
    """World points (..., N, 3) to (..., N, 3): x px, y px, depth along the camera's z in world units."""
    camera = transform_points(world_to_camera, points)
    homogeneous = camera @ np.swapaxes(np.asarray(K, dtype=np.float64), -1, -2)
    depth = camera[..., 2:3]
    return np.concatenate([homogeneous[..., :2] / depth, depth], axis=-1)


def pixel_rays(pixels: ArrayLike, K: ArrayLike, world_to_camera: ArrayLike) -> tuple[Array, Array]:
    """Rays through pixels (..., N, 2): origins (..., 3) and unit directions (..., N, 3), in the world."""
    pixels_, w2c = np.asarray(pixels, dtype=np.float64), np.asarray(world_to_camera, dtype=np.float64)
    ones = np.ones((*pixels_.shape[:-1], 1))
    local = np.concatenate([pixels_, ones], axis=-1) @ np.swapaxes(np.linalg.inv(np.asarray(K, np.float64)), -1, -2)
    origin: Array = np.asarray(np.linalg.inv(w2c)[..., :3, 3], dtype=np.float64)
    return origin, _unit(local @ np.linalg.inv(w2c[..., :3, :3]).swapaxes(-1, -2))


def unproject(pixels: ArrayLike, depth: ArrayLike, K: ArrayLike, world_to_camera: ArrayLike) -> Array:
    """Pixels (..., N, 2) with depths (..., N) along the camera's z to world points (..., N, 3)."""
    pixels_, depth_ = np.asarray(pixels, dtype=np.float64), np.asarray(depth, dtype=np.float64)
    ones = np.ones((*pixels_.shape[:-1], 1))
    local = np.concatenate([pixels_, ones], axis=-1) @ np.swapaxes(np.linalg.inv(np.asarray(K, np.float64)), -1, -2)
    return transform_points(np.linalg.inv(np.asarray(world_to_camera, dtype=np.float64)), local * depth_[..., None])


def opengl_camera_to_world(world_to_camera: ArrayLike) -> Array:
    """The `transform_matrix` of camera files: camera-to-world with OpenGL axes (x right, y up, z back)."""
    return np.linalg.inv(np.asarray(world_to_camera, dtype=np.float64)) @ _OPENGL_FROM_OPENCV


def world_to_camera_from_opengl(transform_matrix: ArrayLike) -> Array:
    """Inverse of `opengl_camera_to_world`."""
    out: Array = np.asarray(np.linalg.inv(np.asarray(transform_matrix, np.float64) @ _OPENGL_FROM_OPENCV), np.float64)
    return out


def move_camera(world_to_camera: ArrayLike, new_from_world: ArrayLike) -> Array:
    """The camera (..., 4, 4) that sees `new_from_world @ x` at the pixels where `world_to_camera` sees x.

    `new_from_world` (4, 4) is a similarity; depths along z scale with it, the result stays a rigid motion.
    """
    similarity = np.asarray(new_from_world, dtype=np.float64)
    scale = np.cbrt(np.linalg.det(similarity[:3, :3]))
    out = np.asarray(world_to_camera, dtype=np.float64) @ np.linalg.inv(similarity)
    out = out.copy()
    out[..., :3, :] *= scale
    return out


def clip_from_camera(K: ArrayLike, width: int, height: int, near: ArrayLike | float, far: ArrayLike | float) -> Array:
    """Projection (..., 4, 4) from OpenCV camera coordinates to clip space with image row 0 at ndc y = -1.

    ndc x = 2 u / width - 1, ndc y = 2 v / height - 1, ndc z from -1 (near) to 1 (far), w = depth. Rasterizers with
    OpenGL's bottom-up rows (nvdiffrast) therefore return row 0 = top of the picture, and no image is ever flipped.
    """
    K_ = np.asarray(K, dtype=np.float64)
    near_, far_ = np.asarray(near, dtype=np.float64), np.asarray(far, dtype=np.float64)
    out = np.zeros((*np.broadcast_shapes(K_.shape[:-2], near_.shape, far_.shape), 4, 4))
    out[..., 0, 0] = 2 * K_[..., 0, 0] / width
    out[..., 0, 1] = 2 * K_[..., 0, 1] / width
    out[..., 0, 2] = 2 * K_[..., 0, 2] / width - 1
    out[..., 1, 1] = 2 * K_[..., 1, 1] / height
    out[..., 1, 2] = 2 * K_[..., 1, 2] / height - 1
    out[..., 2, 2] = (far_ + near_) / (far_ - near_)
    out[..., 2, 3] = -2 * far_ * near_ / (far_ - near_)
    out[..., 3, 2] = 1.0
    return out


def clip_from_world(
    K: ArrayLike, world_to_camera: ArrayLike, width: int, height: int, near: ArrayLike | float, far: ArrayLike | float
) -> Array:
    """`clip_from_camera` after `world_to_camera`: (..., 4, 4)."""
    return clip_from_camera(K, width, height, near, far) @ np.asarray(world_to_camera, dtype=np.float64)


def _unit(vector: Array) -> Array:
    return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-300)
