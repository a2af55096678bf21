"""Pictures of a head model that shows named facial actions: what a detector's expression scores are calibrated on."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.avatar.demo_head import outside_offsets
from flame_fitting.avatar.evidence_pictures import EvidencePictures, HeadPose, shown_heads
from flame_fitting.head.actions import BLINK, FOLLOW_GAZE, JAW, Actions, sides_of
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.action_scores import ActionSamples, log_odds, scored
from flame_fitting.landmarks.detector import LandmarkDetector


@dataclass(frozen=True)
class ActionPictures:
    """How many pictures, of what."""

    identities: int = 20
    poses: int = 6
    """Of each identity; the first is at rest."""
    views: int = 3
    size: int = 512
    """Side of a picture, px."""
    shape_sigma: float = 0.9
    offset_mm: float = 1.5
    """What persons are beyond the components of identity, rms over the face."""
    most: int = 3
    """Actions at once."""
    amount: tuple[float, float] = (0.2, 1.4)
    both_sides: float = 0.6
    """Share of two-sided actions that both sides show alike."""
    blink: float = 0.3
    """Share of faces with lids more or less shut."""
    shut: float = 0.8
    """Most of eyeBlink: beyond it lids pass each other."""
    jaw: tuple[float, float] = (0.3, 0.3)
    """Share of faces with an open jaw, and how far at most, rad."""
    gaze: tuple[float, float] = (15.0, 8.0)
    """Largest yaw and pitch, degrees."""
    yaw: float = 30.0
    """Largest angle of a camera around the head, degrees."""
    pitch: float = 12.0
    seed: int = 301


def draw_faces(
    head: HeadModel, actions: Actions, config: ActionPictures
) -> Iterator[tuple[int, HeadPose, Float[ndarray, " B"]]]:
    """Random heads: identity, pose, and the amounts of all actions, the jaw's angle (rad) behind them."""
    rng = np.random.default_rng(config.seed)
    groups = {key: own for key, own in sides_of(actions.names).items() if not key.startswith((FOLLOW_GAZE, BLINK))}
    keys = list(groups)
    for identity in range(config.identities):
        shape = config.shape_sigma * np.clip(rng.standard_normal(min(head.n_shape, 60)), -2.5, 2.5)
        offsets = outside_offsets(head, 1e-3 * config.offset_mm, rng, leading=(0, 0))
        for number in range(config.poses):
            amounts = dict.fromkeys(actions.names, 0.0)
            for key in rng.choice(keys, rng.integers(1, config.most + 1), replace=False) if number else ():
                own = groups[str(key)]
                if len(own) == 2 and rng.random() > config.both_sides:
                    own = (own[rng.integers(2)],)
                amounts |= dict.fromkeys(own, rng.uniform(*config.amount))
            if number and rng.random() < config.blink:
                shut = rng.uniform(0, config.shut)
                amounts |= {f"{BLINK}{side}": shut * float(rng.random() < 0.9) for side in ("Left", "Right")}
            jaw = rng.uniform(0, config.jaw[1]) if number and rng.random() < config.jaw[0] else 0.0
            yaw, pitch = np.radians(rng.uniform(-1, 1, 2) * config.gaze)
            eyes, turn = np.array([pitch, yaw, 0.0, pitch, yaw, 0.0]), np.array([jaw, 0.0, 0.0])
            pose = HeadPose(shape, actions.expression(amounts), turn, eyes, offsets)
            yield identity, pose, np.array([*amounts.values(), jaw])


def sample_actions(
    head: HeadModel,
    actions: Actions,
    detector: LandmarkDetector,
    embedding: LandmarkEmbedding,
    config: ActionPictures | None = None,
    progress: Callable[[Sequence], Iterable] = list,
) -> ActionSamples:
    """What the detector says of each face, its views together, and what it shows."""
    config = config or ActionPictures()
    faces = list(draw_faces(head, actions, config))
    pictures = EvidencePictures(
        views=config.views, size=config.size, yaw=config.yaw, pitch=config.pitch, seed=config.seed
    )
    poses = [(identity, pose) for identity, pose, _ in faces]
    shown = list(shown_heads(head, detector, embedding, pictures, progress, poses))
    seen = np.unique([one.number for one in shown])
    wanted = [detector.score_names.index(name) for name in scored(detector.score_names)]
    odds = [np.mean([log_odds(one.scores[wanted]) for one in shown if one.number == n], axis=0) for n in seen]
    return ActionSamples(
        (*actions.names, JAW),
        scored(detector.score_names),
        np.array([faces[n][2] for n in seen]),
        np.array(odds),
        np.array([faces[n][0] for n in seen]),
    )
