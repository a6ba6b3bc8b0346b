"""Folds of cross-validation: each event validates once, none is on both sides, and the test split is never touched."""

import pytest

from common.errors import AdvtagError
from configs.training import Fold
from models.keys import jet_keys
from training.cache import open_cache
from training.train import train_all

FOLDS = [Fold(number=number, of=3) for number in range(3)]


@pytest.fixture(scope="module")
def jets(shared_workplace, toys):
    """Key and event of each jet, by the split of the columns."""
    found = {}
    for content in (toys(2000, 1), toys(1000, 2)):
        names = ("run", "luminosityBlock", "event", "jet_index")
        keys = jet_keys(*(content[name] for name in names)).tolist()
        for key, split, *event in zip(keys, content["split"], *(content[name] for name in names[:3]), strict=True):
            found.setdefault(int(split), {})[key] = tuple(map(int, event))
    return found


def keys(stored):
    return set(stored.read(0, len(stored)).inputs.key.tolist())


def test_each_event_validates_in_one_fold_and_trains_in_the_others(shared_workplace, jets):
    caches = [open_cache(shared_workplace.columns, fold) for fold in FOLDS]
    known = {**jets[0], **jets[1]}
    assert not known.keys() & jets[2].keys()
    times = dict.fromkeys(known, 0)
    for cache in caches:
        validation, train = keys(cache.validation), keys(cache.train)
        assert not validation & train
        assert validation | train == known.keys()
        assert not {known[key] for key in validation} & {known[key] for key in train}  # whole events
        assert 0.25 < len(validation) / len(known) < 0.42
        for key in validation:
            times[key] += 1
    assert set(times.values()) == {1}


def test_caches_of_folds_lie_beside_each_other(shared_workplace):
    digests = {open_cache(shared_workplace.columns, fold).digest for fold in (None, *FOLDS)}
    assert len(digests) == 4
    assert {path.name for path in (shared_workplace.columns.parent / "cache").iterdir() if path.is_dir()} >= digests


def test_a_training_says_its_fold(shared_workplace):
    from models.tagger import load_tagger

    settings = {"epochs": 1, "learning_rate": 3e-3}
    analysis = shared_workplace.analysis({"whole": settings, "folded": {**settings, "fold": {"number": 1, "of": 3}}})
    whole, folded = (load_tagger(path) for path in train_all(analysis, progress=False))
    assert folded.provenance["fold"] == {"number": 1, "of": 3}
    assert whole.provenance["fold"] is None
    assert not whole.mean.equal(folded.mean)  # standardised with other jets


def test_folds_are_counted_from_zero(shared_workplace):
    with pytest.raises(AdvtagError, match=r"training\.x\.fold: number: folds are counted from 0 to 2"):
        shared_workplace.analysis({"x": {"fold": {"number": 3, "of": 3}}})
