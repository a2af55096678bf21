"""VHAP's grammar for parts of a dataset: `ti3`, `ti0tj9`, `tn10`, `ts5`, `ci0`, `cn8`, `cs2`, joined: `ts2_cn4`."""

import re

from flame_fitting.errors import InputError

_TOKEN = re.compile(
    r"ti(?P<ti>\d+)(?:tj(?P<tj>\d+))?|tn(?P<tn>\d+)|ts(?P<ts>\d+)|ci(?P<ci>\d+)|cn(?P<cn>\d+)|cs(?P<cs>\d+)"
)
_HELP = (
    "Parts are ti<a> (timestep a), ti<a>tj<b> (timesteps a to b), tn<k> (k spread timesteps), ts<k> (every k-th),"
    " and ci<a>, cn<k>, cs<k> for cameras; join them with _"
)


def select(
    subset: str | None, timesteps: list[int], cameras: list[int], flag: str = "--subset"
) -> tuple[list[int], list[int]]:
    """The timesteps and cameras that `subset` names, by position in the given lists; all of them where it is None.

    `flag` is what messages call it.
    """
    if not subset:
        return timesteps, cameras
    rest = subset
    while rest:
        match = _TOKEN.match(rest)
        if match is None:
            raise InputError(f"{flag} {subset}: '{rest}' is not understood. {_HELP}.")
        rest = rest[match.end() :].lstrip("_,")
        kind, value = next((name, int(text)) for name, text in match.groupdict().items() if text is not None)
        if kind == "ti":
            last = int(match["tj"]) if match["tj"] is not None else value
            timesteps = timesteps[value : last + 1]
        elif kind == "ci":
            cameras = cameras[value : value + 1]
        elif value == 0:
            raise InputError(f"{flag} {subset}: {kind}0 selects nothing. {_HELP}.")
        elif kind in ("tn", "ts"):
            timesteps = _spread(timesteps, value) if kind == "tn" else timesteps[::value]
        else:
            cameras = _spread(cameras, value) if kind == "cn" else cameras[::value]
    if not timesteps or not cameras:
        raise InputError(f"{flag} {subset}: selects nothing from the capture. {_HELP}.")
    return timesteps, cameras


def _spread(values: list[int], count: int) -> list[int]:
    count = min(count, len(values))
    return [values[(i * len(values)) // count] for i in range(count)]
