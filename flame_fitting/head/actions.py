"""Named facial actions in terms of a head model's expression components."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from flame_fitting import assets
from flame_fitting.errors import InputError
from flame_fitting.files import read_npz, reason
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel

JAW = "jawOpen"
"""The action that is the jaw joint's."""
FOLLOW_GAZE, BLINK = "eyeLook", "eyeBlink"
"""How the names of the lids' actions begin: those that follow a gaze, and those that shut."""
_SIDES = ("Left", "Right")
_INDEPENDENT, _DEVIATION = 60, 0.0005
"""Of the landmarks that carry actions over to another model: how many tell different things, and how exactly, m."""
_HAS = 0.5
"""Share of what an action moves that a model's components have of it, at least."""


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


def actions_at_landmarks(
    head: HeadModel, corners: Int[Tensor, "n 3"], barycentric: Float[Tensor, "n 3"], index: Int[ndarray, " n"]
) -> Actions | None:
    """The open head's actions in terms of another model's expression components, by how they move landmarks.

    Points of `mediapipe478` of numbers `index` lie on the model where `corners` and `barycentric` say. Those that the
    components do not have are left out; None for a model that
    has no expression.
    """
    path = assets.shipped_embedding_path("mediapipe", "lit")
    if not path.is_file() or not head.n_expr:
        return None
    shipped, open_head, embedding = _shipped(), _open_head(), LandmarkEmbedding.load(path)
    both = embedding.valid[index]
    index, own = index[both], torch.as_tensor(np.flatnonzero(both), device=corners.device)
    faces = open_head.faces[torch.as_tensor(embedding.face_index[index])]
    basis = open_head.exprdirs[faces].double().numpy()
    moved = np.einsum("nkce,nk,ae->anc", basis, embedding.barycentric[index], shipped.coefficients)
    shares = barycentric[own].cpu().numpy()
    system = np.einsum("nkce,nk->nce", head.exprdirs[corners[own]].double().cpu().numpy(), shares)
    system, wanted = system.reshape(-1, system.shape[2]), moved.reshape(len(moved), -1)
    # so many independent points tell as much as all of them
    held = len(index) / _INDEPENDENT * _DEVIATION**2 * np.eye(system.shape[1])
    found = np.linalg.solve(system.T @ system + held, system.T @ wanted.T).T
    explained = 1 - ((found @ system.T - wanted) ** 2).sum(1) / np.maximum((wanted**2).sum(1), 1e-20)
    has = np.flatnonzero(explained > _HAS)
    return Actions(tuple(shipped.names[k] for k in has), found[has], explained[has], head.file_hash)


@lru_cache(maxsize=1)
def _open_head() -> HeadModel:
    from flame_fitting.head.loading import load_head

    return load_head("open")


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
