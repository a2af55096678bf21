"""What a photometric stage is told: the balance of its terms, its steps and sizes. Pure values."""

import math
from dataclasses import dataclass
from typing import Literal

from flame_fitting.fit.losses.light import LightingType
from flame_fitting.fit.solvers.geometry_weights import GeometryWeights


@dataclass(kw_only=True)
class PhotometricWeights:
    """Balance of the photometric stages; every term is a mean, so weights do not depend on views or resolution.

    Values are the options' (`WeightConfig`): none has a default of its own.
    """

    photo: float
    """Photometric L1 in sRGB."""
    silhouette: float
    """Area of the head outside the avatar."""
    silhouette_inside: float
    """Area of the avatar near its own outline that the head does not cover."""
    texture_variation: float
    """Squared differences of neighbouring texels, in texels of 1 / 2048, where the texture is optimised."""
    variation_covered: bool
    """The mean of these is over the texels that the views see, not over all."""
    residual: float
    """Squared residual texture in the regions `PhotometricConfig.residual_for`."""
    diffuse: float
    """Shading that is brighter than 1 or coloured."""
    light: float
    """Squared light coefficients beyond ambient."""
    geometry: GeometryWeights
    """Terms that look at vertices and parameters alone."""


@dataclass(kw_only=True)
class PhotometricConfig:
    """One photometric stage. What an option says has no default here."""

    steps: int
    """Adam steps."""
    steps_per_epoch: int
    """Steps in which each timestep is seen once."""
    pictures: bool
    """Whether pictures are looked at; without them only `PhotometricWeights.geometry` counts."""
    views_per_step: int
    """Pictures drawn in one step."""
    downsample: tuple[int, ...]
    """Whole factors by which pictures are reduced, coarse to fine, for equal shares of the steps."""
    texture_sizes: tuple[int, ...]
    """Texels along an edge of the texture used while optimising, coarse to fine, for equal shares of the steps."""
    base: Literal["baked", "painted", "neutral"]
    """Colours under the residual."""
    rebake: int
    """Steps between two bakes of the base and two searches of correspondences; 0: only before the first step."""
    smooth: float
    """Blur of a baked base inside a region, as a share of the texture's edge; 0 keeps all detail."""
    across_views: bool
    """Each half of the views is compared with a base that is baked from the other half."""
    disturb_rate_fg: float
    """Share of the head's pixels whose colour is drawn at random from the same region."""
    disturb_rate_bg: float
    """The same for the background."""
    clusters: tuple[str, ...]
    """Regions with an appearance of their own; later ones overwrite earlier ones."""
    pool_every: int = 10
    """Steps between two drawings of the colour pools, and of a far background."""
    background: Literal["target", "white", "black", "far"]
    """What lies behind the avatar: what the pictures have, a colour, or random colours far from its outline's."""
    outline_band: float = 0.012
    """Width of the band along the avatar's outline in which uncovered avatar pulls, share of a picture's height."""
    texture_except: tuple[str, ...]
    """Regions whose texture and shading move no geometry."""
    boundary_except: tuple[str, ...]
    """Regions whose silhouette moves no geometry."""
    residual_for: tuple[str, ...]
    """Regions whose residual texture is kept small."""
    cull: bool
    """Whether back faces are left out. An avatar's are drawn where its neck is open, and then the head's must be."""
    lighting: LightingType
    """Light on the head; `constant` leaves it in the texture, which for a static head under fixed light it is."""
    lighting_space: Literal["world", "camera"]
    """Where the light stands still: `world` is the reference frame."""
    fused_from: int = 300
    """On a GPU, steps of one size from which fused kernels and CUDA graphs pay: compiling and capturing them takes
    seconds in a new process, and a step saves two milliseconds."""
    pixels_per_chunk: int = 2**24
    """Pixels that are drawn at once (about 250 bytes each); more views are taken in chunks that add up."""
    schedule: Literal["constant", "cosine", "exponential"]
    """How step sizes fall: not, by half a cosine to 0, or by a tenth each epoch."""
    average_last: float
    """Share of the last iterates whose mean is the result: the perturbation is noise, a mean is steadier."""
    stop_below: float
    """Share of the loss by which it must fall from one window to the next for a stage to go on; 0: it always does."""
    stop_window: int
    """Steps in a window."""
    components: tuple[tuple[str, int], ...]
    """How many of the coefficients move, from the first on: `shape` and `expr`; all where it is not said."""
    lr: tuple[tuple[str, float], ...]
    """Adam's step size of each parameter that moves: fields of `FitParameters` (`placement` also by its parts, see
    `fit.parameters.PARAMETERS`), `texture` and `lights`."""

    @property
    def is_long(self) -> bool:
        """Whether fused kernels and graphs pay."""
        return self.steps // max(len(self.downsample), len(self.texture_sizes)) >= self.fused_from

    def factor(self, step: int) -> float:
        """Share of the step sizes that a step takes."""
        if self.schedule == "cosine":
            return 0.5 + 0.5 * math.cos(math.pi * step / self.steps)
        return 0.9 ** (step // self.steps_per_epoch) if self.schedule == "exponential" else 1.0
