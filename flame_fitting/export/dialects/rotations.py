"""Rotations as other programs write them, as NumPy; all angles in radians."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation


def matrix_from_axis_angle(vector: Float[ndarray, "T 3"]) -> Float[ndarray, "T 3 3"]:
    """Rodrigues' formula."""
    return Rotation.from_rotvec(vector).as_matrix()


def axis_angle_from_matrix(matrix: Float[ndarray, "T 3 3"]) -> Float[ndarray, "T 3"]:
    """The nearest rotation's axis times its angle in 0..pi."""
    return Rotation.from_matrix(matrix).as_rotvec()


def compose(outer: Float[ndarray, "T 3"], inner: Float[ndarray, "T 3"]) -> Float[ndarray, "T 3"]:
    """Axis-angle of `inner` followed by `outer`."""
    if not np.any(outer):
        return inner.copy()
    if not np.any(inner):
        return outer.copy()
    return (Rotation.from_rotvec(outer) * Rotation.from_rotvec(inner)).as_rotvec()


def matrix_from_6d(numbers: Float[ndarray, "T 6"]) -> Float[ndarray, "T 3 3"]:
    """Gram-Schmidt on the first two ROWS of the matrix, the order of PyTorch3D's `rotation_6d_to_matrix`.

    Zhou et al., "On the continuity of rotation representations in neural networks", CVPR 2019, section B, whose own
    order is columns.
    """
    first = _unit(numbers[:, :3])
    second = _unit(numbers[:, 3:] - np.sum(first * numbers[:, 3:], axis=1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=1)


def axis_angle_from_6d(numbers: Float[ndarray, "T 6"]) -> Float[ndarray, "T 3"]:
    """See `matrix_from_6d`."""
    return axis_angle_from_matrix(matrix_from_6d(numbers))


def six_d_from_axis_angle(vector: Float[ndarray, "T 3"]) -> Float[ndarray, "T 6"]:
    """The first two rows of the matrix."""
    return matrix_from_axis_angle(vector)[:, :2].reshape(-1, 6)


def matrix_from_euler_xyz(angles: Float[ndarray, "T 3"]) -> Float[ndarray, "T 3 3"]:
    """R_x R_y R_z: intrinsic XYZ."""
    return Rotation.from_euler("XYZ", angles).as_matrix()


def euler_xyz_from_axis_angle(vector: Float[ndarray, "T 3"]) -> Float[ndarray, "T 3"]:
    """Inverse of `matrix_from_euler_xyz`."""
    return Rotation.from_rotvec(vector).as_euler("XYZ")


def _unit(vector: ndarray) -> ndarray:
    return vector / np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-12)
