"""What every matting method offers; `methods` names them."""

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray

Tagged = tuple[Any, UInt8[ndarray, "H W"]]
"""What came with a frame, and the frame's alpha map."""


class Matting(ABC):
    """Alpha maps of the frames of a clip, which come in order."""

    identity: str
    """Tells results of other weights and settings apart."""
    lookback: int | None = 0
    """How many frames before the first one wanted must be pushed for the same result as with all; None: all."""

    def begin(self, camera_id: str | None) -> None:  # noqa: B027
        """Begins a clip: nothing of the clip before is left. Raises InputError where something of it is missing."""

    @abstractmethod
    def push(self, tag: Any, picture: UInt8[ndarray, "H W 3"]) -> list[Tagged]:
        """Takes the next sRGB frame; gives what is finished by now, oldest first."""

    def finish(self) -> list[Tagged]:
        """Ends the clip; gives the rest."""
        return []

    def close(self) -> None:  # noqa: B027
        """Frees threads and memory."""
