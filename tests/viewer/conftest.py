"""Fits to look at."""

import pytest

from flame_fitting.viewer.opening import Viewed
from tests.synthetic import known_fit, render_case, save_case, similarity
from tests.toy import toy_head


@pytest.fixture(scope="module")
def viewed(tmp_path_factory: pytest.TempPathFactory) -> Viewed:
    """A static fit with its capture; the avatar is the fit itself, its file is not there."""
    folder = tmp_path_factory.mktemp("viewed")
    head = toy_head()
    fit = known_fit(head, similarity())
    capture = render_case(folder, head, fit, n_fit=6, n_heldout=1)
    fit.folder = save_case(folder / "fit", fit, capture)
    return Viewed(fit, head, capture)
