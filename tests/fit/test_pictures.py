"""Pictures are read when they are asked for, kept up to a bound, and handed out with their own cameras."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.errors import InputError
from flame_fitting.fit.pictures import Pictures
from flame_fitting.fit.views import ViewSet
from tests.fit.pictures import around, draw, smooth_texture
from tests.toy import toy_head

SIZE = 16
EACH = 4 * SIZE * SIZE


@pytest.fixture(scope="module")
def views() -> ViewSet:
    """Three frames of four views around the head; no two pictures are the same."""
    head = toy_head()
    drawn = draw(head, head.v_template.numpy(), smooth_texture(16), around(4) * 3, SIZE)
    rgba = drawn.rgba + torch.arange(12, dtype=torch.uint8)[:, None, None, None]
    return replace(drawn, rgba=rgba, timestep=torch.arange(12) // 4)


class Counting:
    """Reads pictures from memory and notes which."""

    def __init__(self, views: ViewSet) -> None:
        self.views, self.read, self._guard = views, [], threading.Lock()

    def __call__(self, row: int) -> torch.Tensor:
        with self._guard:
            self.read.append(row)
        return self.views.rgba[row]


BOUND = 10**9


def store(views: ViewSet, limit: int = BOUND) -> tuple[Pictures, Counting]:
    source = Counting(views)
    return Pictures(replace(views, rgba=views.rgba[:0]), source, limit), source


def test_a_batch_has_the_pixels_and_cameras_of_its_rows_and_nothing_else_is_read(views) -> None:
    pictures, source = store(views)
    assert len(pictures) == 12 and pictures.resolution == (SIZE, SIZE) and source.read == []
    batch, expected = pictures.batch([7, 2]), views.subset([7, 2])
    assert sorted(source.read) == [2, 7]
    for name in ("rgba", "clip", "timestep"):
        assert torch.equal(getattr(batch, name), getattr(expected, name)), name
    np.testing.assert_array_equal(batch.camera, expected.camera)
    np.testing.assert_array_equal(batch.K, expected.K)
    assert [view.camera for view in batch.views] == [view.camera for view in expected.views]
    pictures.batch([2, 7, 3])
    assert sorted(source.read) == [2, 3, 7]


def test_no_more_is_kept_than_the_bound_and_the_oldest_goes_first(views) -> None:
    pictures, source = store(views, limit=4 * EACH)
    for rows in ([0, 1, 2, 3], [4, 5], [2, 3, 6]):
        assert torch.equal(pictures.batch(rows).rgba, views.rgba[rows])
        assert pictures.kept_bytes <= 4 * EACH
    # 2 and 3 were still there, 0 and 1 had gone for 4 and 5, and one of these goes for 6
    assert sorted(source.read) == [0, 1, 2, 3, 4, 5, 6]
    pictures.batch([0])
    assert source.read[-1] == 0
    # more than the bound at once is handed out all the same
    assert torch.equal(pictures.batch(range(12)).rgba, views.rgba) and pictures.kept_bytes <= 4 * EACH


def test_prefetched_pictures_are_read_once_and_within_the_bound(views) -> None:
    pictures, source = store(views, limit=3 * EACH)
    pictures.prefetch(list(range(12)))
    assert torch.equal(pictures.batch([0, 1, 2]).rgba, views.rgba[:3]) and sorted(source.read) == [0, 1, 2]


def test_rows_of_frames_and_of_the_front(views) -> None:
    pictures, _ = store(views)
    assert pictures.rows() == list(range(12)) and pictures.rows([1]) == [4, 5, 6, 7]
    assert pictures.rows([2, 0]) == [0, 1, 2, 3, 8, 9, 10, 11]
    # eyes at 0, 90, 180 and 270 degrees
    assert pictures.rows(max_yaw=45) == [0, 4, 8] and pictures.rows([1], max_yaw=100) == [4, 5, 7]
    behind, _ = store(views.subset([2, 6]))
    assert behind.rows(max_yaw=45) == [0, 1]  # no camera is in front: all there are


def test_what_cannot_be_read_is_said_by_whoever_asks(views) -> None:
    def read(row: int) -> torch.Tensor:
        raise InputError("images/00000_03.png: not a picture. Make the capture again.")

    pictures = Pictures(replace(views, rgba=views.rgba[:0]), read, BOUND)
    pictures.prefetch([3])
    with pytest.raises(InputError, match=r"00000_03\.png"):
        pictures.batch([3])
