"""What the terms without pictures count for. Pure values."""

from dataclasses import dataclass

from flame_fitting.fit.losses.offsets import OffsetWeights


@dataclass(frozen=True, kw_only=True)
class GeometryWeights:
    """Balance of the terms without pictures; each is a mean. Values are the options' (`WeightConfig`)."""

    landmark_3d: float
    """Landmarks in space, in squared standard deviations."""
    landmark: float
    """Landmarks in the pictures, as in VHAP: mean absolute difference, in halves of a picture's longer side."""
    jawline: bool
    """Whether the jaw line is among the landmarks in the pictures."""
    visible: bool
    """Whether of these only those count that face the camera."""
    contour: float
    """The jaw line as the outline that it is: distance of the detected points to the head's contour, robust."""
    closure: float
    """Opening of lids and lips, in squared standard deviations of the landmarks."""
    surface: float
    """Point-to-plane distance to the avatar, in squared millimetres."""
    prior: float
    """Gaussian priors of shape, expression and joints, in squared standard deviations."""
    shape: float
    """Mean square of the shape coefficients."""
    expr: float
    """Mean square of the expression coefficients."""
    neck: float
    """Mean squared difference between the neck's rotation matrix and the identity."""
    jaw: float
    """The same for the jaw; closing beyond shut, yaw and roll cost more."""
    eyes: float
    """The same for each eye, and the mean squared difference of the two."""
    offset: OffsetWeights
    """Offsets, static and dynamic together; `l1` counts for the dynamic ones once more, so that static ones take what
    stays."""
    smooth: tuple[tuple[str, float], ...]
    """Mean squared change of parameters since the timestep before, which does not move with it, by name, as in VHAP."""
    offset_change: float
    """Mean squared change of the dynamic offsets from a timestep to the next, per m^2, as in VHAP."""
