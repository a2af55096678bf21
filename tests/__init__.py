"""The run-time type checker of the tests: beartype, with ints taken where floats are meant, as type checkers do.

Made when it is asked for: scripts/make_golden_raster.py imports scenes where beartype need not be installed.
"""

from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1)
def _checked() -> Any:
    from beartype import BeartypeConf, beartype

    return beartype(conf=BeartypeConf(is_pep484_tower=True))


def __getattr__(name: str) -> Any:
    if name == "checked":
        return _checked()
    raise AttributeError(name)
