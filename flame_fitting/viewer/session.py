"""What is set in the viewer at a moment, without a browser: timestep, pose, and what follows from them."""

from jaxtyping import Float
from numpy import ndarray

from flame_fitting.viewer.controls import Control, controls_of, moved, value_of
from flame_fitting.viewer.opening import Viewed
from flame_fitting.viewer.poses import Pose, Poser, pose_at, pose_at_rest


class Session:
    """Sliders that were moved stay where they are set while time goes on; all others follow the fit."""

    def __init__(self, viewed: Viewed) -> None:
        self.viewed = viewed
        self._of_fit = [pose_at(viewed.fit, row) for row in range(viewed.fit.timesteps)]
        self.controls: list[Control] = controls_of(viewed.head, self._of_fit)
        self.row = 0
        self._base: Pose | None = None
        self._values: dict[tuple[str, str], float] = {}
        self._poser = Poser(viewed)

    @property
    def timesteps(self) -> int:
        """How many there are."""
        return len(self._of_fit)

    @property
    def base(self) -> Pose:
        """What sliders are moved from: a pose that was loaded, or the fit's at this timestep."""
        return self._of_fit[self.row] if self._base is None else self._base

    @property
    def pose(self) -> Pose:
        """What is shown."""
        return moved(self.base, self.controls, self._values)

    def vertices(self) -> Float[ndarray, "V 3"]:
        """The head as it is set, in the shown frame."""
        return self._poser.vertices(self.pose, self.row)

    def fitted_vertices(self, row: int) -> Float[ndarray, "V 3"]:
        """The head as it was fitted at a timestep."""
        return self._poser.vertices(self._of_fit[row], row)

    def go_to(self, row: int) -> None:
        """Shows another timestep; a pose that was loaded is left."""
        self.row, self._base = row, None

    def move(self, control: Control, value: float) -> None:
        """Sets a slider."""
        self._values[control.key] = value

    def as_fitted(self) -> None:
        """Takes all sliders back."""
        self._values, self._base = {}, None

    def at_rest(self) -> None:
        """No expression, joints at rest."""
        self.show(pose_at_rest(self.viewed.fit))

    def show(self, pose: Pose) -> None:
        """Shows a pose, such as one that was loaded."""
        self._values, self._base = {}, pose

    def value(self, control: Control) -> float:
        """Where a slider stands, in whole steps within its range."""
        value = self._values.get(control.key)
        value = value_of(control, self.base) if value is None else value
        value = round(value / control.step) * control.step
        return round(min(max(value, control.low), control.high), 6)
