"""Names of the dialects; light, because the command line shows them."""

from typing import Literal

DialectName = Literal[
    "vhap", "smplx", "metrical-tracker", "pixel3dmm", "flame-head-tracker", "nersemble", "body-models"
]
