"""Toy columns and a configuration, in a folder whose name a shell would trip over."""

import pytest

from tests.training.conftest import Workplace, toy_jets

ODD = "a b'$HOME;(x)"


@pytest.fixture
def odd_place(tmp_path):
    folder = tmp_path / ODD
    folder.mkdir()
    place = Workplace(folder)
    place.write({"tt": [toy_jets(1500, 1)]})
    settings = {"epochs": 2, "learning_rate": 3e-3}
    analysis = place.analysis(
        {"nominal": settings, "adversarial": {**settings, "attack": "fgsm"}}, datasets={"tt": {"files": "x.root"}}
    )
    assert set(analysis.training) == {"nominal", "adversarial"}
    return place
