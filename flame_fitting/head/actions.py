"""Named facial actions in terms of a head model's expression components."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting import assets
from flame_fitting.errors import InputError
from flame_fitting.files import read_npz, reason
from flame_fitting.head.model import HeadModel

JAW = "jawOpen"
"""The action that is the jaw joint's."""
FOLLOW_GAZE, BLINK = "eyeLook", "eyeBlink"
"""How the names of the lids' actions begin: those that follow a gaze, and those that shut."""
_SIDES = ("Left", "Right")


@dataclass(frozen=True, eq=False)
class Actions:
    """Facial actions by ARKit's names; jawOpen is not among them, it is the jaw joint's."""

    names: tuple[str, ...]
    coefficients: Float[ndarray, "A E"]
    """Expression coefficients that show each action at full strength; an amount a of it takes a times these.

    At full strength lids pass each other: on the mean head they meet at 0.5 to 0.8 of it."""
    explained: Float[ndarray, " A"]
    """Share of each action's mean square displacement that the components have."""
    head_hash: str
    """Of the head model's file."""

    def expression(self, amounts: dict[str, float]) -> Float[ndarray, " E"]:
        """Coefficients of several actions together, by name and amount; KeyError for a name that there is not."""
        unknown = [name for name in amounts if name not in self.names]
        if unknown:
            raise KeyError(f"no action is called {', '.join(unknown)}")
        rows = [amount * self.coefficients[self.names.index(name)] for name, amount in amounts.items()]
        return np.sum([np.zeros(self.coefficients.shape[1]), *rows], axis=0)


def sides_of(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Actions by their names without the side: one or two each."""
    out: dict[str, tuple[str, ...]] = {}
    for name in names:
        stem = next((name.removesuffix(side) for side in _SIDES if name.endswith(side)), name)
        # a mouth to the left is no half of a mouth
        alone = stem in ("jaw", "mouth") or not all(stem + side in names for side in _SIDES)
        key = name if alone else stem
        out[key] = (*out.get(key, ()), name)
    return out


def choices_of(names: Sequence[str]) -> list[tuple[str, ...]]:
    """What a face may show of the skin's actions: each by itself, and both sides of those that have two, alike."""
    out: list[tuple[str, ...]] = []
    for key, own in sides_of(names).items():
        if key != JAW and not key.startswith((FOLLOW_GAZE, BLINK)):
            out += [(name,) for name in own] + ([own] if len(own) == 2 else [])
    return out


def actions_of(head: HeadModel) -> Actions | None:
    """The actions of the open head that ships; None for other head models, of which none are known."""
    actions = _shipped() if head.name == "open" else None
    return actions if actions is not None and actions.head_hash == head.file_hash else None


@lru_cache(maxsize=1)
def _shipped() -> Actions:
    path, advice = assets.shipped_actions_path(), "Install the program again."
    arrays = read_npz(path, advice)
    try:
        names = tuple(str(name) for name in arrays["names"])
        coefficients, explained = (arrays[key].astype(np.float64) for key in ("coefficients", "explained"))
        if coefficients.ndim != 2 or len(names) != len(coefficients) or explained.shape != (len(names),):
            raise ValueError("names and coefficients do not belong together")
        return Actions(names, coefficients, explained, str(arrays["head_hash"]))
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not a file of facial actions ({reason(error)}). {advice}") from error
