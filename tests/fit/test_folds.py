"""Which triangles count as folded."""

import torch

from flame_fitting.fit.folds import adjacent_faces, folded_faces

FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])
SQUARE = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]])


def _folded(vertices: torch.Tensor) -> list[bool]:
    return folded_faces(vertices, SQUARE, FACES, adjacent_faces(FACES))[0].tolist()


def test_neighbours_share_an_edge() -> None:
    assert adjacent_faces(FACES).tolist() == [[0, 1]]
    apart = torch.tensor([[0, 1, 2], [3, 4, 5]])
    assert adjacent_faces(apart).shape == (0, 2)


def test_a_flat_or_bent_sheet_is_no_fold() -> None:
    assert _folded(SQUARE) == [False, False]
    bent = SQUARE.clone()
    bent[0, 3] = torch.tensor([0.5, 0.5, 0.7])  # upright
    assert _folded(bent) == [False, False]


def test_the_triangle_that_turned_over_counts() -> None:
    over = SQUARE.clone()
    over[0, 3] = torch.tensor([0.9, 0.1, 0.0])  # corner 3 folded across the diagonal
    assert _folded(over) == [False, True]


def test_a_sharp_fold_counts_before_a_right_angle_to_its_old_place_is_passed() -> None:
    # both turn by 65 degrees, toward each other: neither is inside out, together they are a fold
    angle = torch.deg2rad(torch.tensor(65.0))
    closed = SQUARE.clone()
    axis = torch.tensor([1.0, 1.0, 0.0]) / 2**0.5
    for corner, side in ((1, 1.0), (3, -1.0)):
        middle = torch.tensor([0.5, 0.5, 0.0])
        away = closed[0, corner] - middle
        closed[0, corner] = middle + away * torch.cos(angle) + torch.linalg.cross(axis, away) * torch.sin(side * -angle)
    folded = _folded(closed)
    assert sum(folded) == 1


def test_neighbours_that_were_folded_nearly_so_count_from_ten_degrees_more() -> None:
    def bent(degrees: float) -> torch.Tensor:
        """The square with its normals turned apart by an angle, half of it in each triangle."""
        angle, out = torch.deg2rad(torch.tensor(degrees / 2)), SQUARE.clone()
        middle = torch.tensor([0.5, 0.5, 0.0])
        for corner in (1, 3):
            away = SQUARE[0, corner] - middle
            out[0, corner] = middle + away * torch.cos(angle) + torch.tensor([0.0, 0.0, 0.5**0.5]) * torch.sin(angle)
        return out

    pairs = adjacent_faces(FACES)
    for then, now, folds in ((119.0, 121.0, 0), (119.0, 128.0, 0), (119.0, 131.0, 1), (100.0, 119.0, 0), (90, 121, 1)):
        assert folded_faces(bent(now), bent(then), FACES, pairs).sum() == folds, (then, now)
