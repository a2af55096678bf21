"""Which scale an avatar is fitted at: its unit, where that can be told, or an estimate. No heavy import here.

A face fixes its own size to a few percent only: people differ by as much. A file's unit is far more certain, once it is
clear which one it is.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from flame_fitting.errors import InputError

Unit = Literal["m", "dm", "cm", "mm", "inch", "foot"]
ScaleMode = Literal["auto", "estimate", "fixed"]

METRES_PER_UNIT: dict[Unit, float] = {"m": 1.0, "dm": 0.1, "cm": 0.01, "mm": 0.001, "inch": 0.0254, "foot": 0.3048}
OWN_UNIT: dict[str, Unit] = {"glb": "m", "gltf": "m", "vrm": "m"}
"""Unit of a file format that has one (glTF 2.0, section 3.4: all lengths are metres)."""
NEAR = 0.08
"""An estimate this near to a unit, relatively, is taken for it: adults' heads differ by 3 to 4 % (one sigma)."""

assert set(METRES_PER_UNIT) == set(get_args(Unit))


@dataclass(frozen=True)
class Scale:
    """The scale that a fit keeps to."""

    source: str = "estimated"
    """estimated; `auto: m` where the estimate chose the unit; `fixed: m` where a flag or the format did."""
    metres_per_unit: float | None = None
    """Held by the whole fit; None: estimated with the rest."""
    estimate: float | None = None
    """Metres per unit by the face alone, where that was found before a unit was taken."""

    @property
    def held(self) -> bool:
        """Whether the fit may not change it."""
        return self.metres_per_unit is not None

    @property
    def sentence(self) -> str:
        """What a log says of it."""
        face = "" if self.estimate is None else f"by the face alone one unit is about {1000 * self.estimate:.4g} mm"
        if self.metres_per_unit is None:
            return "scale: estimated" + (f"; {face}, near no common unit" if face else "")
        unit = self.source.split(": ")[1]
        unit = f"one unit is 1 {unit}" + ("" if unit == "mm" else f" = {1000 * self.metres_per_unit:.4g} mm")
        return f"scale: {unit} ({face or 'fixed'}; --scale and --unit choose another)"

    def as_dict(self, mm_per_unit: float) -> dict[str, Any]:
        """For manifests and metrics; `mm_per_unit` is the finished fit's."""
        estimate = None if self.estimate is None else 1000 * self.estimate
        return {"source": self.source, "mm_per_unit": mm_per_unit, "mm_per_unit_by_face": estimate}


def unit_near(estimate: float, own: Unit | None = None) -> Unit | None:
    """The common unit within `NEAR` of an estimate (m): the format's own if it is one of several, else the nearest."""
    apart = {unit: abs(estimate / size - 1) for unit, size in METRES_PER_UNIT.items()}
    near = [unit for unit in apart if apart[unit] <= NEAR]
    return min(near, key=lambda unit: (unit != own, apart[unit]), default=None)


def asked_for(mode: ScaleMode, unit: Unit | None, file_format: str | None, said: Unit | None = None) -> Scale | None:
    """The scale that flags and format settle, None where an estimate has to choose (`auto`).

    `said` is the unit that the capture's files name.
    """
    if mode == "estimate":
        return Scale()
    unit = unit or said
    if mode == "auto" and unit is None:
        return None
    unit = unit or OWN_UNIT.get(file_format or "", "m")
    return Scale(f"fixed: {unit}", METRES_PER_UNIT[unit])


def chosen_by(estimate: float, file_format: str | None) -> Scale:
    """`auto`: the common unit near the estimate, else the estimate."""
    unit = unit_near(estimate, OWN_UNIT.get(file_format or ""))
    if unit is None:
        return Scale(estimate=estimate)
    return Scale(f"auto: {unit}", METRES_PER_UNIT[unit], estimate)


def named_unit(name: str | None, where: str) -> Unit | None:
    """The unit that a capture's files name; InputError, which names `where`, for what is none."""
    for unit in METRES_PER_UNIT:
        if name == unit:
            return unit
    if name is None:
        return None
    raise InputError(f"{where}: unit is {name!r}; units are {', '.join(METRES_PER_UNIT)}. Correct it, or leave it out.")


def contradiction(mode: ScaleMode, unit: Unit | None) -> str | None:
    """What is wrong with a pair of flags."""
    if mode == "estimate" and unit is not None:
        return f"--scale estimate and --unit {unit} contradict each other. Give one of them."
    return None
