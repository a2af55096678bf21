"""The options of a fit as its report shows them: without those that do nothing in it."""

from typing import Any, NamedTuple

from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.presets import preset
from flame_fitting.fit.track_config import TrackConfig, track_preset
from flame_fitting.manifest import Manifest, config_as_dict
from flame_fitting.options import options_of

_ADAM_ONLY = (
    "lr_scale",
    "lr_schedule",
    "average_last",
    "stop_below",
    "stop_window",
    "rebake",
    "across_views",
    "disturb",
)


class Setting(NamedTuple):
    """One option."""

    name: str
    value: str
    changed: bool
    """Whether it differs from its preset's default."""


def settings_of(manifest: Manifest | None, stages: dict[str, Any]) -> list[Setting]:
    """Options that had an effect: not what is accepted and does nothing, weights of 0 and stages that did not run."""
    if manifest is None or "preset" not in manifest.config:
        return []
    config_type: type = FitConfig if manifest.stage == "fit" else TrackConfig
    idle = {one.name for one in options_of(config_type) if one.rule.without_effect or one.rule.refused}
    name = str(manifest.config["preset"])
    default = preset(name) if config_type is FitConfig else track_preset(name, monocular=manifest.stage == "track")
    usual, values = _flat(config_as_dict(default)), _flat(manifest.config)
    out = []
    for key, value in values.items():
        group, _, rest = key.partition(".")
        stage, _, field = rest.partition(".")
        if key in idle or (group == "w" and value == 0) or (group == "pipeline" and stage not in stages):
            continue
        solver = values.get(f"pipeline.{stage}.solver")
        if group == "pipeline" and ((field in _ADAM_ONLY and solver != "adam") or value in (0, [], None, False)):
            continue
        changed = key not in ("capture", "output") and value != usual.get(key)
        out.append(Setting(key, _said(value), changed))
    return out


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """By dotted names."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out


def _said(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:g}"
    return str(value) if value not in (None, "") else "none"
