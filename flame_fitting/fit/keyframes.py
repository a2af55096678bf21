"""Which timesteps stand for all: those that are fitted first, and those that a stage of many steps looks at."""

import numpy as np
import torch

from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters


def keyframes(seen: Observations, parameters: FitParameters, count: int) -> list[int]:
    """Up to `count` timesteps with a face, whose heads are turned and placed most differently from one another.

    Farthest-point sampling of rotation (rad) and translation (dm), from the first one. All where none shows a face.
    """
    valid = np.flatnonzero(seen.valid)
    if not len(valid):
        return list(range(seen.timesteps))
    pose = torch.cat([parameters.rotation, 10 * parameters.translation], dim=1).cpu().numpy()[valid]
    chosen = [0]
    apart = np.linalg.norm(pose - pose[0], axis=1)
    while len(chosen) < min(count, len(valid)):
        chosen.append(int(apart.argmax()))
        apart = np.minimum(apart, np.linalg.norm(pose - pose[chosen[-1]], axis=1))
    return sorted(int(valid[place]) for place in chosen)


def first_with_face(seen: Observations) -> int:
    """The first timestep with a face; 0 where none has one."""
    return int(np.argmax(seen.valid))
