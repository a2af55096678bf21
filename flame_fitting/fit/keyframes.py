"""Which timesteps stand for all: those that are fitted first, and those that a stage of many steps looks at."""

from collections.abc import Sequence

import numpy as np
import torch

from flame_fitting.errors import InputError
from flame_fitting.fit.bridging import listed
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters


def keyframes(seen: Observations, parameters: FitParameters, count: int) -> list[int]:
    """Up to `count` timesteps with a face, whose heads are turned and placed most differently from one another.

    Farthest-point sampling of rotation (rad) and translation (dm), from the first one. All where none shows a face.
    """
    valid = np.array(seen.with_face, dtype=int)
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


def check_keyframes(asked: Sequence[int], timesteps: int, valid: Sequence[bool] | None = None) -> None:
    """Raises InputError where keyframes that are asked for do not exist, come twice, or show no face.

    `valid` says of each of so many `timesteps` whether it does; None where that is not known yet.
    """
    valid = [True] * timesteps if valid is None else valid
    beyond = sorted(row for row in set(asked) if not 0 <= row < timesteps)
    faceless = sorted(row for row in set(asked) if 0 <= row < timesteps and not valid[row])
    doubled = sorted(row for row in set(asked) if asked.count(row) > 1)
    problems = []
    if beyond:
        problems.append(f"{listed(beyond)}: there are the timesteps {listed(range(timesteps))}")
    if faceless:
        with_face = listed([row for row in range(timesteps) if valid[row]])
        problems.append(f"{listed(faceless)}: no face was found there, or it is held out. There are {with_face}")
    if doubled:
        problems.append(f"{listed(doubled)}: given more than once")
    if problems:
        given = " ".join(map(str, asked))
        raise InputError(f"--exp.keyframes {given}: {'; '.join(problems)}. Give others, or leave the flag out.")
