"""The lights that avatars of every kind are drawn under."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

# Directions toward the lights in the head's frame (x the subject's left, y up, z forward): key, fill, rim, sky.
_LIGHTS = np.array([[0.45, 0.55, 0.70], [-0.65, 0.15, 0.75], [0.0, -0.25, -1.0], [0.0, 1.0, 0.0]])
_LIGHTS /= np.linalg.norm(_LIGHTS, axis=1, keepdims=True)
LIGHT_COLOR = np.array([0.50, 0.32, 0.20, 0.22])
AMBIENT = 0.20
SHADOW = 0.75
"""How much of the light ambient occlusion can take away."""
CLAY_GREY = 0.78


def lights_in_world(
    world_to_camera: Float[ndarray, "B 4 4"], light_rotation: Float[ndarray, "3 3"] | None
) -> Float[ndarray, "B L 3"]:
    """Unit directions toward the lights; the last one is the sky, which wraps around."""
    if light_rotation is None:
        # The camera's own axes, turned so that y is up and z points back to the viewer.
        frames = np.diag([1.0, -1.0, -1.0]) @ np.asarray(world_to_camera, dtype=np.float64)[:, :3, :3]
    else:
        frames = np.broadcast_to(np.asarray(light_rotation, dtype=np.float64), (len(world_to_camera), 3, 3))
    lights = _LIGHTS @ frames
    return np.ascontiguousarray(lights / np.linalg.norm(lights, axis=2, keepdims=True))


def light_on(
    normals: Float[ndarray, "N 3"], lights: Float[ndarray, "L 3"], occlusion: Float[ndarray, " N"]
) -> Float[ndarray, " N"]:
    """Grey light that surfaces of these unit normals reflect, as `shading_kernels.shade` has it.

    occlusion: share of the light that is left, from `occlusion_left`.
    """
    cosine = normals @ lights.T
    cosine[:, :-1] = np.maximum(cosine[:, :-1], 0.0)
    cosine[:, -1] = 0.5 + 0.5 * cosine[:, -1]
    return (AMBIENT + cosine @ LIGHT_COLOR) * occlusion


def occlusion_left(open_sky: Float[ndarray, " N"]) -> Float[ndarray, " N"]:
    """Share of the light that is left where this share of the sky is seen."""
    return 1.0 - SHADOW * (1.0 - open_sky)
