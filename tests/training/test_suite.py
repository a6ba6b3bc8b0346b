"""What each suite runs, in which order."""

import math

import pytest

from attacks import Budget
from common.errors import AdvtagError
from training.suite import EPSILONS, JETS, suite

QUICK = ["noise", "systematic-up", "systematic-down", "fgsm", "ngm", "pgd"]
MORE = ["pgd-l2", "rdsa", "minifool", "conserv"]
INTEGERS = ["pip", "pip-pgd"]
SEARCHES = ["apgd-ce", "apgd-dlr-targeted", "square"]
CHECKS = [*(f"pgd@{factor:g}" for factor in EPSILONS), "pgd-restarts", "unbounded"]


def made(name="standard", classes=4, **changes):
    return suite(name, classes, **{"epsilon": 0.05, "scale": "core", "capped": False, "seed": 3, **changes})


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("quick", [*QUICK, *SEARCHES, *CHECKS]),
        ("standard", [*QUICK, *MORE, *SEARCHES, *INTEGERS, *CHECKS]),
        ("full", [*QUICK, *MORE, *SEARCHES, *INTEGERS, *CHECKS]),
    ],
)
def test_runs_by_name_in_order(name, names) -> None:
    found = made(name)
    assert list(found) == names
    assert [run for run, entry in found.items() if entry.survivors] == SEARCHES
    assert [run for run, entry in found.items() if entry.check] == CHECKS


def test_larger_suites_take_more_jets_and_steps() -> None:
    numbers = [math.inf if JETS[name] is None else JETS[name] for name in ("quick", "standard", "full")]
    assert numbers == sorted(set(numbers))
    for run, parameter in (("apgd-ce", "steps"), ("apgd-dlr-targeted", "steps"), ("square", "queries")):
        steps = [getattr(made(name)[run].attack, parameter) for name in ("quick", "standard", "full")]
        assert steps == sorted(set(steps))


def test_three_classes_have_no_fourth_logit_to_aim_at() -> None:
    names = [name.replace("dlr-targeted", "dlr") for name in made()]
    three = made(classes=3)
    assert list(three) == names
    assert three["apgd-dlr"].attack.objective == "dlr"
    assert made()["apgd-dlr-targeted"].attack.objective == "dlr-targeted"
    assert made()["apgd-ce"].attack.objective == "ce"


@pytest.mark.parametrize("name", ["quick", "standard", "full"])
def test_all_attacks_have_the_budget_and_the_seed(name) -> None:
    for run, entry in made(name).items():
        factor = float(run.partition("@")[2] or 1)
        if run == "unbounded":
            assert entry.attack.budget == Budget(epsilon=100.0, capped=False)
        else:
            assert entry.attack.budget == Budget(epsilon=factor * 0.05, scale="core", capped=False)
        assert entry.attack.seed == 3
    other = made(name, seed=4, capped=True)
    assert all(entry.attack.seed == 4 for entry in other.values())
    assert all(entry.attack.budget.capped is (run != "unbounded") for run, entry in other.items())


def test_the_same_attack_is_compared_at_several_epsilons_and_with_restarts() -> None:
    found = made()
    epsilons = [found[f"pgd@{factor:g}"].attack for factor in EPSILONS]
    assert sorted(EPSILONS) == list(EPSILONS)
    assert 1.0 in EPSILONS
    assert len({repr(attack).replace(repr(attack.budget), "") for attack in epsilons}) == 1
    assert not any(attack.random_start for attack in epsilons)
    once, often = (vars(found[name].attack) for name in ("pgd", "pgd-restarts"))
    assert {name for name in once if once[name] != often[name]} == {"restarts"}
    up, down = (found[f"systematic-{way}"].attack.shift for way in ("up", "down"))
    assert (up, down) == ("up", "down")


def test_scale_from_a_table(tmp_path) -> None:
    (tmp_path / "t.yaml").write_text("uncertainties: {pt: 0.5}")
    found = made("quick", scale=tmp_path / "t.yaml")
    assert found["fgsm"].attack.budget.scale == {"pt": 0.5}
    assert found["unbounded"].attack.budget.scale == "std"
    with pytest.raises(AdvtagError, match=r"u\.yaml: cannot read the table"):
        made("quick", scale=str(tmp_path / "u.yaml"))
    with pytest.raises(AdvtagError, match=r"attack\.noise\.epsilon: "):
        made("quick", epsilon=math.nan)
