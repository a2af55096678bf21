"""Options of the fit that balance it: step sizes, weights, priors. VHAP's names and meanings where VHAP has them."""

from dataclasses import dataclass

from flame_fitting.fit.reasons import KNOWN_CAMERAS, NO_TEXTURE_SPACE, ONE_TIMESTEP
from flame_fitting.options import option


@dataclass
class LearningRates:
    """Step sizes of the stages that use Adam; None takes `base`."""

    base: float = option(5e-3, at_least=0)
    """Everything without a rate of its own."""
    shape: float | None = option(4e-3, at_least=0)
    """Identity coefficients."""
    expr: float = option(4e-3, at_least=0)
    """Expression coefficients."""
    eyelids: float = option(0.0, at_least=0)
    """Eyelids of head models that have them as components (5e-3 over time); 0: they stay as second order has found
    them, since a texture that is baked of the same pictures tells nothing of them."""
    rotation: float | None = option(1e-4, at_least=0)
    """Rotation of the head, rad."""
    translation: float = option(1e-4, at_least=0)
    """Translation of the head, m."""
    scale: float = option(1e-4, at_least=0)
    """Logarithm of the avatar's scale."""
    neck: float | None = option(5e-4, at_least=0)
    """Neck, rad."""
    jaw: float | None = option(5e-4, at_least=0)
    """Jaw, rad."""
    eyes: float | None = option(2e-3, at_least=0)
    """Eyes, rad."""
    texture: float | None = option(5e-3, at_least=0)
    """Texture, sRGB."""
    static_offset: float = option(3e-4, at_least=0)
    """Static offsets, m."""
    dynamic_offset: float = option(5e-4, at_least=0, without_effect=ONE_TIMESTEP, only_static=True)
    """Dynamic offsets, m."""
    camera: float = option(5e-3, at_least=0, without_effect=KNOWN_CAMERAS, only_static=True)
    """Cameras."""
    light: float = option(5e-3, at_least=0)
    """Light."""

    def of(self, name: str) -> float:
        """The rate of a parameter: the field `name`, or `base` where it is None."""
        value = getattr(self, name)
        return self.base if value is None else value


@dataclass
class WeightConfig:
    """Balance of the terms. The regularisers act in the Adam stages that move what they hold."""

    photo: float = option(100.0, at_least=0)
    """Photometric L1, sRGB."""
    silhouette: float = option(30.0, at_least=0)
    """Head outside the avatar's outline."""
    silhouette_inside: float = option(30.0, at_least=0)
    """Avatar near its outline that the head does not cover; nothing where w.silhouette is 0."""
    landmark: float = option(0.0, at_least=0)
    """2D landmarks in the Adam stages."""
    landmark_visible: bool = option(True, seldom=True)
    """Of the 2D landmarks only those count that face the camera."""
    landmark_3d: float = option(1.0, at_least=0)
    """3D landmarks in the Adam stages."""
    always_enable_jawline_landmarks: bool = False
    """Use the jaw line's landmarks in every stage, whatever the stage says."""
    contour: float = option(0.0, at_least=0)
    """Jaw line's landmarks as contour points."""
    closure: float = option(0.0, at_least=0)
    """Opening of eyes and lips as the landmarks have it."""
    surface: float = option(30.0, at_least=0)
    """Avatar's surface in the Adam stages."""
    prior: float = option(0.02, at_least=0)
    """Priors of the group `prior` in the Adam stages."""
    evidence: float = option(3.0, at_least=0)
    """Lids, lips and gaze as a detector's evidence has them, where it has some: independent measurements that each
    opening and each angle counts for."""
    landmark_count: float = option(60.0, at_least=0)
    """Independent measurements that all landmarks count for in the second-order stages."""
    surface_count: float = option(600.0, at_least=0)
    """The same for the avatar's surface."""
    reg_shape: float = option(0.0, at_least=0)
    """Squared identity coefficients, mean."""
    reg_expr: float = option(0.0, at_least=0)
    """Squared expression coefficients, mean."""
    reg_neck: float = option(0.0, at_least=0)
    """Rotation of the neck."""
    reg_jaw: float = option(0.0, at_least=0)
    """Rotation of the jaw, more so closing and sideways."""
    reg_eyes: float = option(0.0, at_least=0)
    """Rotation of the eyes and the difference of the two."""
    reg_tex_res_clusters: float = option(10.0, at_least=0)
    """Residual texture of the regions below."""
    reg_tex_res_for: tuple[str, ...] = ("sclerae", "teeth")
    """Regions whose texture stays near its base."""
    reg_tex_tv: float = option(1e4, at_least=0)
    """Total variation of the texture."""
    reg_tex_tv_covered: bool = True
    """Scale the total variation by the texels that the views cover: one weight for few and many views."""
    reg_tex_pca: float = option(1e-4, at_least=0, without_effect=NO_TEXTURE_SPACE)
    """Squared coefficients of a texture space."""
    reg_light: float | None = option(None, at_least=0)
    """Light away from a constant one."""
    reg_diffuse: float = option(100.0, at_least=0)
    """Shading brighter than 1 or coloured."""
    reg_offset: float = option(30.0, at_least=0)
    """Length of the offsets, L1."""
    reg_offset_relax_coef: float = option(1.0, at_least=0)
    """Factor of it for the regions below."""
    reg_offset_relax_for: tuple[str, ...] = ("hair", "ears")
    """Regions with more freedom."""
    reg_offset_lap: float = option(1e6, at_least=0)
    """Laplacian of the offsets."""
    reg_offset_lap_per_area: bool = True
    """Scale it by the mesh's edges: one weight for any mesh."""
    reg_offset_lap_relax_coef: float = option(0.1, at_least=0)
    """Factor of it for the regions below."""
    reg_offset_lap_relax_for: tuple[str, ...] = ("hair", "ears")
    """Regions with more freedom."""
    reg_offset_rigid: float = option(0.0, at_least=0)
    """Variance of the offsets inside each of the regions below."""
    reg_offset_rigid_for: tuple[str, ...] = ("left_ear", "right_ear", "neck", "left_eye", "right_eye", "lips_tight")
    """Regions that may only be translated."""
    reg_offset_dynamic: float = option(3e5, at_least=0, without_effect=ONE_TIMESTEP, only_static=True)
    """Change of the offsets from a timestep to the next."""
    blur_iter: int = option(0, at_least=0)
    """Rounds of smoothing of the regions' factors over the mesh."""
    smooth_trans: float = option(300.0, at_least=0, without_effect=ONE_TIMESTEP, only_static=True)
    """Change of the translation from a timestep to the next."""
    smooth_rot: float = option(30.0, at_least=0, without_effect=ONE_TIMESTEP, only_static=True)
    """The same for the rotation."""
    smooth_neck: float = option(30.0, at_least=0, without_effect=ONE_TIMESTEP, only_static=True)
    """The same for the neck."""
    smooth_jaw: float = option(0.1, at_least=0, without_effect=ONE_TIMESTEP, only_static=True)
    """The same for the jaw."""
    smooth_eyes: float = option(0.0, at_least=0, without_effect=ONE_TIMESTEP, only_static=True)
    """The same for the eyes."""
    smooth_expr: float = option(0.0, at_least=0, without_effect=ONE_TIMESTEP, only_static=True)
    """The same for the expression."""


@dataclass
class PriorConfig:
    """Standard deviations of the Gaussian priors."""

    shape: float = option(1.0, above=0)
    """Identity coefficients."""
    expr: float = option(0.3, above=0)
    """Expression coefficients (1.0 with --expressive)."""
    expr_several: float = option(1.0, above=0, seldom=True)
    """The same of several moments of one person, but for the one nearest to rest."""
    eyelids: float = option(0.05, above=0)
    """Eyelids of head models that have them as components (0 open, 1 shut), of eyes that are not known to be shut (0.5
    with --expressive, and over time)."""
    neck: float = option(0.1, above=0)
    """Rotation of the neck, rad."""
    jaw: float = option(0.1, above=0)
    """Opening of the jaw, rad (0.3 with --expressive)."""
    eyes: float = option(0.15, above=0)
    """Rotation of the eyes, rad."""
    log_focal: float = option(0.5, above=0, without_effect=KNOWN_CAMERAS, only_static=True)
    """Logarithm of the focal length over the assumed one, where it is estimated."""
    log_size: float | None = option(0.001, above=0, without_effect=KNOWN_CAMERAS, only_static=True, seldom=True)
    """Logarithm of the head's size over the mean head's, where cameras are not known and so do not tell it; None: as
    the identity coefficients have it."""
    landmark_bias: float | None = option(0.0015, above=0, without_effect=ONE_TIMESTEP, only_static=True)
    """What each landmark is always off by, along each axis, in the second-order stages, m: the detector's error and
    what the head model cannot show of the face; None: nothing."""
    log_scale: float = option(0.03, above=0)
    """Logarithm of the scale, where it is estimated."""
    rotation_change: float | None = option(0.1, above=0, seldom=True)
    """Change of the head's rotation from a timestep to the next in the second-order stages, rad; None: timesteps are
    independent. It carries timesteps without a face; landmarks outweigh it by far."""
    translation_change: float | None = option(0.01, above=0, seldom=True)
    """The same for its translation, m."""
    expr_change: float | None = option(None, above=0, seldom=True)
    """The same for the expression."""
    eyelids_change: float | None = option(None, above=0, seldom=True)
    """The same for the eyelids."""
    neck_change: float | None = option(None, above=0, seldom=True)
    """The same for the neck, rad."""
    jaw_change: float | None = option(None, above=0, seldom=True)
    """The same for the jaw, rad."""
    eyes_change: float | None = option(None, above=0, seldom=True)
    """The same for the eyes, rad."""
    steadied: bool = option(True, seldom=True, without_effect=ONE_TIMESTEP, only_static=True)
    """Narrow these to the changes that the sequence itself shows, each group's at each timestep; no: they are as
    stated."""
