"""Numbers in text formats."""

import re
from collections.abc import Sequence

import numpy as np

# 1.#QNAN, -1.#IND00, 1.#INF (older Windows libraries), nan(ind), -nan(0x8000)
_NOT_A_NUMBER = re.compile(r"[-+]?(\d+\.#[A-Za-z]+\d*|nan\(\w*\))", re.IGNORECASE)


def numbers_of(words: Sequence[str]) -> np.ndarray:
    """float64 of decimal numbers, all digits kept; what C libraries print for NaN and infinity becomes NaN."""
    try:
        return np.array(words, dtype=np.float64)
    except ValueError:
        return np.array(["nan" if _NOT_A_NUMBER.fullmatch(word) else word for word in words], dtype=np.float64)
