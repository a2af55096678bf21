"""The presets' values: VHAP's published schedule, weights and step sizes; what the others change."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from flame_fitting.errors import InputError
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.presets import PRESETS, preset
from flame_fitting.fit.schedule import effective_pipeline

CAPTURE = Path("capture")

# VHAP's multi-view defaults.
VHAP_GROUPS: dict[str, dict[str, Any]] = {
    "model": {
        "n_shape": 300,
        "n_expr": 100,
        "n_tex": 100,
        "use_static_offset": True,
        "use_dynamic_offset": False,
        "add_teeth": True,
        "remove_lip_inside": False,
        "tex_resolution": 2048,
        "tex_painted": True,
        "tex_extra": True,
        "tex_clusters": ("skin", "hair", "boundary", "lips_tight", "teeth", "sclerae", "irises"),
        "residual_tex": True,
        "occluded": (),
        "flame_params_path": None,
    },
    "render": {
        "backend": "nvdiffrast",
        "use_opengl": False,
        "background_train": "target",
        "disturb_rate_fg": 0.5,
        "disturb_rate_bg": 0.5,
        "background_eval": "target",
        "lighting_type": "SH",
        "lighting_space": "world",
    },
    "lr": {
        "base": 5e-3,
        "translation": 1e-3,
        "expr": 5e-2,
        "static_offset": 5e-4,
        "dynamic_offset": 5e-4,
        "camera": 5e-3,
        "light": 5e-3,
    },
    "w": {
        "landmark": 3.0,
        "always_enable_jawline_landmarks": False,
        "photo": 30.0,
        "reg_shape": 0.3,
        "reg_neck": 0.3,
        "reg_jaw": 0.3,
        "reg_eyes": 0.03,
        "reg_expr": 0.01,
        "reg_tex_res_clusters": 10.0,
        "reg_tex_res_for": ("sclerae", "teeth"),
        "reg_tex_tv": 1e5,
        "reg_tex_pca": 1e-4,
        "reg_light": None,
        "reg_diffuse": 100.0,
        "reg_offset": 300.0,
        "reg_offset_relax_coef": 1.0,
        "reg_offset_relax_for": ("hair", "ears"),
        "reg_offset_lap": 1e6,
        "reg_offset_lap_relax_coef": 0.1,
        "reg_offset_lap_relax_for": ("hair", "ears"),
        "reg_offset_rigid": 300.0,
        "reg_offset_rigid_for": ("left_ear", "right_ear", "neck", "left_eye", "right_eye", "lips_tight"),
        "reg_offset_dynamic": 3e5,
        "blur_iter": 0,
        "smooth_trans": 300.0,
        "smooth_rot": 30.0,
        "smooth_neck": 30.0,
        "smooth_jaw": 0.1,
        "smooth_eyes": 0.0,
        "smooth_expr": 0.0,
    },
}
OURS_IN_W = ("silhouette", "silhouette_inside", "landmark_3d", "contour", "closure", "surface", "prior")
ALL = "cam pose shape joints expr texture lights"
# stage: steps, epochs, optimised, texture blocked for, silhouette blocked for, jaw line off
VHAP_STAGES = {
    "lmk_init_rigid": (500, 0, "cam pose", "", "", False),
    "lmk_init_all": (500, 0, "cam pose shape joints expr", "", "", False),
    "rgb_init_texture": (500, 0, "cam shape texture lights", "hair boundary neck", "hair boundary", False),
    "rgb_init_all": (500, 0, ALL, "hair boundary neck", "hair bottomline", True),
    "rgb_init_offset": (500, 0, f"{ALL} static_offset", "hair boundary neck", "bottomline", True),
    "rgb_sequential_tracking": (50, 0, "pose joints expr", "boundary", "boundary", True),
    "rgb_global_tracking": (0, 30, f"{ALL} static_offset", "boundary", "boundary", True),
    "lmk_sequential_tracking": (50, 0, "pose joints expr", "", "", False),
    "lmk_global_tracking": (0, 30, "cam pose shape joints expr", "", "", False),
}


@pytest.mark.parametrize("group", VHAP_GROUPS)
def test_vhaps_values(group: str) -> None:
    found = asdict(getattr(preset("vhap", CAPTURE), group))
    assert {name: found[name] for name in VHAP_GROUPS[group]} == VHAP_GROUPS[group]


def test_vhap_has_only_vhaps_terms_and_one_step_size_for_what_has_none_of_its_own() -> None:
    config = preset("vhap", CAPTURE)
    assert all(getattr(config.w, name) == 0 for name in OURS_IN_W)
    assert not config.w.reg_tex_tv_covered
    assert config.model.tex_base == "painted"
    assert not config.data.use_geometry
    assert config.data.max_yaw >= 180
    assert {config.lr.of(name) for name in ("shape", "rotation", "neck", "jaw", "eyes", "texture")} == {5e-3}
    assert config.lr.of("expr") == 5e-2
    assert config.lr.scale == 1e-3, "of its fork for avatars, which have no known unit"


@pytest.mark.parametrize("photometric", [True, False])
def test_vhaps_stages(photometric: bool) -> None:
    config = preset("vhap", CAPTURE)
    config.exp.photometric = photometric
    stages = dict(effective_pipeline(config, has_geometry=True))
    left_out = ["lmk_sequential", "lmk_global"] if photometric else ["rgb"]
    assert list(stages) == [name for name in VHAP_STAGES if not name.startswith(tuple(left_out))]
    for name, stage in stages.items():
        steps, epochs, optimised, texture, boundary, jaw_line_off = VHAP_STAGES[name]
        assert (stage.num_steps, stage.num_epochs) == (steps, epochs)
        assert set(stage.optimizable_params) - {"scale"} == set(optimised.split())
        assert ("scale" in stage.optimizable_params) <= ("pose" in stage.optimizable_params)
        assert stage.align_texture_except == tuple(texture.split())
        assert stage.align_boundary_except == tuple(boundary.split())
        assert stage.disable_jawline_landmarks == jaw_line_off
        assert stage.solver == "adam"
        assert (stage.lr_scale, stage.lr_schedule) == ((0.1, "exponential") if epochs else (1.0, "constant"))
        assert (stage.average_last, stage.rebake, stage.smooth, stage.sizes, stage.across_views) == (0, 0, 0, (), False)


def test_static_is_the_class_defaults() -> None:
    assert preset("static", CAPTURE) == FitConfig(CAPTURE)


def test_presets_name_themselves_and_share_nothing() -> None:
    for name in PRESETS:
        config = preset(name, CAPTURE)
        assert config.preset == name
        config.pipeline.rgb_init_all.num_steps = -7
        config.w.photo = -7
        assert preset(name, CAPTURE).pipeline.rgb_init_all.num_steps >= 0
        assert preset(name, CAPTURE).w.photo > 0


@pytest.mark.parametrize("has_geometry", [True, False])
def test_fast_has_no_photometric_stage_but_the_bake_and_high_has_more_steps(has_geometry: bool) -> None:
    steps = {
        name: {stage: one.num_steps for stage, one in effective_pipeline(preset(name, CAPTURE), has_geometry)}
        for name in ("fast", "static", "high")
    }
    assert [stage for stage in steps["fast"] if stage.startswith("rgb_")] == ["rgb_init_texture"]
    assert all(count <= steps["static"][stage] for stage, count in steps["fast"].items())
    assert steps["static"].keys() == steps["high"].keys()
    assert all(count <= steps["high"][stage] for stage, count in steps["static"].items())
    assert sum(steps["fast"].values()) < sum(steps["static"].values()) < sum(steps["high"].values())


def test_a_preset_that_is_not_there() -> None:
    with pytest.raises(InputError, match="static, vhap, fast, high"):
        preset("best")
