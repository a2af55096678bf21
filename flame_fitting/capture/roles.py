"""What a view of a capture is for."""

from typing import Literal

Role = Literal["landmark", "fit", "heldout"]
"""landmark: drawn for detectors; fit: the head is fitted to it; heldout: kept apart for measuring."""
