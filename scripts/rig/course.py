"""What the head does over time: speech, gaze, a blink, a wide-open mouth, a turn, a frame in which it is away."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from flame_fitting.errors import InputError

FEWEST = 8
"""Timesteps: one for each event, and some between."""
EVENTS = {"blink": 0.17, "open": 0.40, "turn": 0.68, "absent": 0.92}
"""When, as a share of the clip."""
BLINKS_APART = 3.1
"""s, in longer clips."""
TURN_DEGREES = 60.0
TURN_OF_NECK = 2 / 3
"""Share of the turn that the neck makes; the whole body makes the rest."""
OPEN_JAW = 0.33
"""rad."""
AWAY = (1.2, -0.1, 0.0)
"""m: where the head is in the frame in which it is out of the picture."""

Absence = Literal["blank", "away", "none"]


@dataclass(eq=False)
class Course:
    """Parameters of T timesteps in the studio: head space of a head that looks forward, metres, radians."""

    expr: Float[ndarray, "T E"]
    rotation: Float[ndarray, "T 3"]
    translation: Float[ndarray, "T 3"]
    neck_pose: Float[ndarray, "T 3"]
    jaw_pose: Float[ndarray, "T 3"]
    eyes_pose: Float[ndarray, "T 6"]
    present: Bool[ndarray, " T"]
    """Whether the head is in the picture."""
    blank: Bool[ndarray, " T"]
    """Where it is not because the picture shows the background alone."""
    events: dict[str, int]
    """Timestep of `blink`, `open`, `turn` and `absent`."""

    def __len__(self) -> int:
        return len(self.expr)


def make_course(
    frames: int,
    fps: float,
    n_expr: int,
    lids: Float[ndarray, " E"],
    rng: np.random.Generator,
    absent: Absence = "blank",
) -> Course:
    """Draws a course; `lids` are the expression coefficients that shut the eyes."""
    check_frames(frames)
    time = np.arange(frames) / fps
    length = frames / fps
    events = {name: round(share * (frames - 1)) for name, share in EVENTS.items()}

    def wave(slow: float, fast: float, count: int = 1, parts: int = 4) -> Float[ndarray, "T count"]:
        """Smooth random curves of unit variance, frequencies in Hz."""
        hertz = rng.uniform(slow, fast, (parts, count))
        phase = rng.uniform(0, 2 * np.pi, (parts, count))
        return np.sqrt(2 / parts) * np.sin(2 * np.pi * hertz * time[:, None, None] + phase).sum(1)

    shut = _bump(time, time[events["blink"]], 0.14)
    for more in np.arange(time[events["blink"]] + BLINKS_APART, length, BLINKS_APART):
        shut = np.maximum(shut, _bump(time, more + rng.uniform(-0.5, 0.5), 0.14))
    wide = _bump(time, time[events["open"]], min(0.45, 0.2 * length))
    turn = np.radians(TURN_DEGREES) * _bump(time, time[events["turn"]], min(1.2, 0.26 * length))

    syllables = 0.5 + 0.5 * np.sin(2 * np.pi * 3.7 * time + rng.uniform(0, 2 * np.pi) + 0.8 * wave(0.3, 0.8)[:, 0])
    loud = np.clip(0.75 + 0.35 * wave(0.2, 0.7)[:, 0], 0.15, 1.2)
    jaw = np.zeros((frames, 3))
    jaw[:, 0] = (0.02 + 0.11 * syllables * loud) * (1 - wide) + OPEN_JAW * wide
    jaw[:, 1] = 0.008 * wave(0.5, 2.0)[:, 0]
    # the first components make most of an expression
    size = 0.45 / (1 + np.arange(n_expr) / 8)
    expr = size * wave(0.4, 3.0, n_expr) * (1 - 0.6 * shut - 0.4 * wide).clip(0.2)[:, None]
    expr += shut[:, None] * lids
    sway = 0.02 * wave(0.2, 0.9, 6)
    rotation, neck = sway[:, :3] * [1.0, 1.0, 0.6], 1.5 * sway[:, 3:] * [1.0, 1.2, 0.7]
    rotation[:, 1] += (1 - TURN_OF_NECK) * turn
    neck[:, 1] += TURN_OF_NECK * turn
    gaze = np.stack([0.05 * wave(0.3, 1.2)[:, 0], 0.10 * wave(0.3, 1.2)[:, 0] - 0.25 * turn, 0 * time], axis=1)
    translation = 0.006 * wave(0.15, 0.8, 3)
    present = np.ones(frames, dtype=bool)
    if absent != "none":
        present[events["absent"]] = False
    if absent == "away":
        translation[events["absent"]] += AWAY
    blank = ~present & (absent == "blank")
    return Course(expr, rotation, translation, neck, jaw, np.tile(gaze, 2), present, blank, events)


def check_frames(frames: int) -> None:
    """InputError where a clip is too short for its events."""
    if frames < FEWEST:
        raise InputError(f"--frames {frames}: a blink, an open mouth and a turn take at least {FEWEST}.")


def _bump(time: Float[ndarray, " T"], middle: float, reach: float) -> Float[ndarray, " T"]:
    """1 at the middle, 0 from `reach` seconds on, flat at both."""
    away = np.clip(np.abs(time - middle) / reach, 0, 1)
    return 0.5 + 0.5 * np.cos(np.pi * away)
