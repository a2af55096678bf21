"""What a video shows that spoils tracking: blank frames, shots that change, gaps. Found while it is decoded."""

from collections import deque

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from flame_fitting.video.resampling import RateCounts

_THUMBNAIL = (48, 48)
_BLANK_SPREAD = 3.0
"""Largest spread of a blank frame: the 2nd to the 98th percentile of its brightness, in 1/255."""
_CUT_AT_LEAST = 18.0
"""Least change of colours at a cut, as `color_change` has it."""
_CUT_TIMES_USUAL = 5.0
"""How much larger than the usual change before it a cut's is."""
_USUAL_OF = 15
_LONG_GAP = 0.09
"""Gaps longer than this, in s, and twice the usual step, are said."""
_MANY_REPEATS = 0.05
_FASTEST = 1000.0
"""Frames per second that no video of a face is played at: its times are wrong."""
_MOST_NAMED = 6


class Watcher:
    """Looks at every frame that becomes a picture, at thumbnail size."""

    def __init__(self) -> None:
        self.blank_start = 0
        """Pictures at the beginning that are of one colour."""
        self.blank: list[int] = []
        """Later pictures that are."""
        self.cuts: list[int] = []
        """Pictures at which a new shot begins."""
        self._before: ndarray | None = None
        self._changes: deque[float] = deque(maxlen=_USUAL_OF)
        self._begun = False

    def look(self, numbers: range, picture: UInt8[ndarray, "H W 3"]) -> None:
        """Looks at the sRGB picture of these numbers; they come in order."""
        thumbnail = cv2.resize(picture, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        if not self._begun:
            if is_blank(picture):
                self.blank_start = numbers.stop
                return
            self._begun = True
        if self._before is not None:
            change = color_change(self._before, thumbnail)
            usual = float(np.median(self._changes)) if self._changes else 0.0
            if change >= max(_CUT_AT_LEAST, _CUT_TIMES_USUAL * usual):
                if is_blank(picture):  # what comes after it is compared with what came before it
                    self.blank += numbers
                    return
                self.cuts.append(numbers.start)
            else:
                self._changes.append(change)
        self._before = thumbnail


def is_blank(picture: UInt8[ndarray, "H W 3"]) -> bool:
    """Whether a picture is of one colour, but for noise."""
    small = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA)
    low, high = np.percentile(small.reshape(-1, 3).astype(np.float32), (2, 98), axis=0)
    return bool((high - low).max() <= _BLANK_SPREAD)


def color_change(before: ndarray, after: ndarray) -> float:
    """Mean absolute difference of two thumbnails (h, w, 3), in their unit.

    A fast move changes where colours are, a cut also which there are: the difference in place counts, or twice that of
    the sorted colours and a tenth of it, whichever is smaller.
    """
    in_place = float(np.abs(after - before).mean())
    sorted_before, sorted_after = (np.sort(t.reshape(-1, 3), axis=0) for t in (before, after))
    return min(in_place, 2.0 * float(np.abs(sorted_after - sorted_before).mean()) + 0.1 * in_place)


def warnings_about(watcher: Watcher, counts: RateCounts, rate: float | None, usual_step: float) -> list[str]:
    """Sentences about a clip: `rate` is that of the pictures, `usual_step` the video's own time between frames, s."""
    found = []
    if watcher.blank_start:
        found.append(
            f"the first {_plural(watcher.blank_start, 'picture is', 'pictures are')} blank (one colour). Cut the "
            "beginning off: tracking starts with the first picture"
        )
    if watcher.blank:
        found.append(f"blank (one colour) at picture {_named(watcher.blank)}: no face can be tracked there")
    if watcher.cuts:
        found.append(
            f"the shot changes at picture {_named(watcher.cuts)}: tracking takes it for one motion. Preprocess each "
            "shot as a video"
        )
    if counts.longest_gap > max(_LONG_GAP, 2.0 * usual_step):
        found.append(
            f"there are gaps of up to {1000 * counts.longest_gap:.0f} ms between frames; pictures are repeated there"
        )
    if rate is not None and counts.decoded > 1 and usual_step * _FASTEST < 1.0:
        found.append(
            f"its {counts.decoded} frames last {1000 * usual_step * counts.decoded:.3g} ms together, so only "
            f"{counts.used} became pictures: its times must be wrong. --target-fps None takes every frame"
        )
    if rate is not None and counts.written and counts.repeated > _MANY_REPEATS * counts.written:
        own = 1.0 / usual_step if usual_step > 0 else rate
        advice = f", --target-fps {own:.3g} would repeat none" if own < 0.98 * rate else ""
        found.append(
            f"{counts.repeated} of {counts.written} pictures repeat the one before: the video has "
            f"{own:.3g} frames per second, {rate:.4g} were asked for{advice}"
        )
    return found


def warnings_about_faces(faces: "list[list[tuple[float, float, float, float]]]") -> list[str]:
    """Sentences about the faces in sampled pictures: boxes (left, top, right, bottom), each in 0..1 of the picture."""
    count = len(faces)
    if count == 0:
        return []
    if not any(faces):
        return [
            f"no face was found in any of {count} pictures that were looked at. Tracking needs one and will refuse "
            "this sequence. Check that it is the right video, and the face upright and a fifth of the picture or more"
        ]
    found = []
    several = [boxes for boxes in faces if len(boxes) > 1]
    if len(several) > max(0, count // 10):
        others = [min(boxes, key=_area) for boxes in several]
        place = _place(others)
        found.append(
            f"there is a second face in {len(several)} of {count} pictures that were looked at ({place}): crop the "
            "video to one person"
        )
    missing = sum(1 for boxes in faces if not boxes)
    if missing > count // 2:
        found.append(f"no face was found in {missing} of {count} pictures that were looked at")
    return found


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _place(boxes: list[tuple[float, float, float, float]]) -> str:
    center = float(np.median([0.5 * (box[0] + box[2]) for box in boxes]))
    return "at the left edge" if center < 0.25 else "at the right edge" if center > 0.75 else "in the middle"


def _named(numbers: list[int]) -> str:
    more = f" and {len(numbers) - _MOST_NAMED} more" if len(numbers) > _MOST_NAMED else ""
    return ", ".join(str(number) for number in numbers[:_MOST_NAMED]) + more


def _plural(count: int, one: str, many: str) -> str:
    return one if count == 1 else f"{count} {many}"
