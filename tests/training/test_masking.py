"""The masking checks on taggers that are made to fail one of them, and on numbers that are made up."""

import pytest
import torch
from torch import nn

from models.features import FeatureSet, Input
from models.inputs import Inputs
from models.tagger import Tagger
from training.masking import Check, attack_checks, network_checks, verdict

CARD = FeatureSet(
    name="toy",
    inputs=tuple(
        Input(name=f"x{k}", branch=f"Jet_x{k}", label=f"x{k}", bins=(1, 0, 1), integer=k == 3) for k in range(4)
    ),
)
CLASSES = ("b", "bb", "c", "udsg")


class After(nn.Module):
    """The network, and something on top."""

    def __init__(self, network: nn.Module, change) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, standardised: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        return self.change(self.network(standardised, present))


def made(change=None, **parameters) -> Tagger:
    torch.manual_seed(1)
    tagger = Tagger(CARD, CLASSES, torch.zeros(4), torch.ones(4), parameters={"width": 20, "hidden": 2, **parameters})
    if change is not None:
        tagger.network = After(tagger.network, change)
    return tagger.eval()


@pytest.fixture(scope="module")
def jets() -> tuple[Inputs, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    values = torch.randn((300, 4), generator=generator)
    present = torch.ones((300, 4), dtype=torch.bool)
    return Inputs(values, present, torch.arange(300)), torch.arange(300) % 4


def passed(tagger: Tagger, jets) -> dict[str, bool | None]:
    checks = network_checks(tagger, *jets)
    assert all(check.expected and check.found for check in checks)
    return {check.name: check.passed for check in checks}


LOGITS, SAME, GRADIENTS = "outputs are logits", "outputs are reproducible", "gradients are not zero"


def test_network_that_hides_nothing(jets) -> None:
    assert passed(made(), jets) == {LOGITS: True, SAME: True, GRADIENTS: True}


def test_network_that_ends_in_a_softmax(jets) -> None:
    assert passed(made(lambda logits: logits.softmax(1)), jets) == {LOGITS: False, SAME: True, GRADIENTS: True}
    # of sum 1 but not all of them in [0, 1], or the other way round: no probabilities
    assert passed(made(lambda logits: logits.softmax(1) / 2), jets)[LOGITS]
    assert passed(made(lambda logits: logits.log_softmax(1)), jets)[LOGITS]
    assert passed(made(lambda logits: logits - logits.mean(1, keepdim=True) + 0.25), jets)[LOGITS]


@pytest.mark.parametrize(
    "change",
    [lambda z: (4 * z).round() / 4, torch.sign, lambda z: z.detach() + 0 * z],
    ids=["rounded", "sign", "detached"],
)
def test_network_without_gradients(jets, change) -> None:
    assert passed(made(change), jets) == {LOGITS: True, SAME: True, GRADIENTS: False}


def test_part_of_the_jets_without_gradient(jets) -> None:
    """Two of 300 pass, three do not: one in a hundred is the limit."""

    def cut(number: int):
        keep = torch.arange(300)[:, None] >= number
        return lambda z: torch.where(keep, z, z.detach())

    for number, right in ((2, True), (3, False), (150, False)):
        tagger = made(cut(number))
        assert passed(tagger, jets)[GRADIENTS] is right
        (check,) = (check for check in network_checks(tagger, *jets) if check.name == GRADIENTS)
        assert check.found == f"zero in {number / 300:.1%}"


def test_very_confident_network_has_gradients(jets) -> None:
    """In float32 their softmax is exactly 1; the check looks in float64."""
    inputs, _ = jets
    tagger = made(lambda z: 3000 * z)
    target = tagger(inputs.values, inputs.present).argmax(1)
    logits = tagger(inputs.values, inputs.present).sort(1, descending=True).values
    confident = logits[:, 0] - logits[:, 1]
    assert (confident > 110).float().mean() > 0.3  # exp(-110) is 0 in float32
    few = confident < 700
    assert passed(tagger, (inputs[few], target[few]))[GRADIENTS]


def test_jets_that_nothing_can_move_do_not_count(jets) -> None:
    """No gradient is hidden where no continuous input is present."""
    inputs, target = jets
    present = inputs.present.clone()
    present[:100, :3] = False
    assert passed(made(), (Inputs(inputs.values, present, inputs.key), target))[GRADIENTS]
    blind = made(lambda z: z.round())
    assert not passed(blind, (Inputs(inputs.values, present, inputs.key), target))[GRADIENTS]
    present[:, :3] = False
    (check,) = (
        check
        for check in network_checks(made(), Inputs(inputs.values, present, inputs.key), target)
        if check.name == GRADIENTS
    )
    assert check.passed is None


def test_network_that_rolls_dice(jets) -> None:
    assert passed(made(lambda z: z + torch.rand_like(z)), jets) == {LOGITS: True, SAME: False, GRADIENTS: True}
    assert passed(made(dropout=0.5).train(), jets)[SAME] is False
    assert passed(made(dropout=0.5), jets)[SAME] is True


def test_the_tagger_stays_as_it_was(jets) -> None:
    tagger = made()
    before = {name: tensor.clone() for name, tensor in tagger.state_dict().items()}
    network_checks(tagger, *jets)
    after = tagger.state_dict()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    assert all(parameter.grad is None for parameter in tagger.parameters())


GOOD = {
    "auc": {"raw": 0.95, "noise": 0.945, "fgsm": 0.80, "pgd@1": 0.75, "unbounded": 0.01},
    "fooled": {"pgd": 0.40, "pgd-restarts": 0.41},
    "transfers": {"other": 0.85},
    "epsilons": {2.0: 0.5, 0.25: 0.93, 1.0: 0.75, 0.5: 0.88, 4.0: 0.2},  # in any order
    "searched": 0.001,
}
ITERATIVE, GROWS = "iterative at least as strong as one step", "damage grows with epsilon"
UNBOUND, NOISE = "no bound, no tagging", "noise much weaker than a gradient"
RESTARTS, SEARCH = "more restarts change little", "white box at least as strong as black box"
TRANSFER = "white box at least as strong as transfer from other"
ALL = {ITERATIVE, GROWS, UNBOUND, NOISE, RESTARTS, SEARCH, TRANSFER}


def failing(**changes) -> set[str]:
    """Names of the failed checks with other numbers; none may be left out."""
    numbers = {
        name: {**value, **changes.pop(name)} if name in changes and isinstance(value, dict) else value
        for name, value in GOOD.items()
    }
    checks = attack_checks(**{**numbers, **changes})
    assert {check.name for check in checks} == ALL
    assert all(check.passed is not None for check in checks)
    return {check.name for check in checks if not check.passed}


def test_numbers_without_a_sign_of_masking() -> None:
    assert failing() == set()


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        ({"auc": {"pgd@1": 0.8021, "fgsm": 0.80}}, {ITERATIVE}),
        ({"auc": {"pgd@1": 0.8019, "fgsm": 0.80}}, set()),  # as good as equal
        ({"epsilons": {2.0: 0.76}}, {GROWS}),
        ({"epsilons": {2.0: 0.7519}}, set()),
        ({"epsilons": {0.25: 0.5}}, {GROWS}),
        ({"epsilons": {4.0: 0.6}}, {GROWS}),
        ({"auc": {"unbounded": 0.1}}, {UNBOUND}),
        ({"auc": {"unbounded": 0.0999}}, set()),
        ({"auc": {"noise": 0.895}}, {NOISE}),  # 0.055 of 0.15
        ({"auc": {"noise": 0.90}}, set()),
        ({"fooled": {"pgd-restarts": 0.4201}}, {RESTARTS}),
        ({"fooled": {"pgd-restarts": 0.42}}, set()),
        ({"fooled": {"pgd-restarts": 0.1}}, set()),
        ({"searched": 0.0051}, {SEARCH}),
        ({"searched": 0.0049}, set()),
        ({"transfers": {"other": 0.7479}}, {TRANSFER}),
        ({"transfers": {"other": 0.7481}}, set()),
        (
            {"auc": {"pgd@1": 0.95, "fgsm": 0.95, "unbounded": 0.95}, "searched": 0.3},
            {UNBOUND, NOISE, SEARCH, TRANSFER},
        ),
    ],
)
def test_numbers_that_fail_a_check(changes, fails) -> None:
    assert failing(**changes) == fails


def test_every_transfer_is_a_check() -> None:
    found = {check.name: check.passed for check in attack_checks(**{**GOOD, "transfers": {"a": 0.9, "b": 0.6}})}
    assert found["white box at least as strong as transfer from a"] is True
    assert found["white box at least as strong as transfer from b"] is False


def test_what_was_not_run_is_neither_passed_nor_failed() -> None:
    none = attack_checks({}, {}, {}, {}, None)
    assert [check.passed for check in none] == [None] * 7
    assert verdict(none) == "no sign of gradient masking in 0 checks, 7 not run"
    for missing, names in (
        ("raw", {NOISE}),
        ("noise", {NOISE}),
        ("fgsm", {NOISE, ITERATIVE}),
        ("pgd@1", {ITERATIVE, TRANSFER}),
        ("unbounded", {UNBOUND}),
    ):
        for auc in ({**GOOD["auc"], missing: None}, {k: v for k, v in GOOD["auc"].items() if k != missing}):
            checks = attack_checks(**{**GOOD, "auc": auc})
            assert {check.name for check in checks if check.passed is None} == names
            assert all(check.passed for check in checks if check.name not in names)
    for epsilons in ({1.0: 0.5}, {0.5: 0.9, 1.0: None}):
        checks = attack_checks(**{**GOOD, "epsilons": epsilons})
        assert {check.name for check in checks if check.passed is None} == {GROWS}


def test_found_tells_the_numbers() -> None:
    found = {check.name: check.found for check in attack_checks(**GOOD)}
    assert found[ITERATIVE] == "0.7500 against 0.8000"
    assert found[GROWS] == "0.9300, 0.8800, 0.7500, 0.5000, 0.2000"
    assert found[NOISE] == "0.0050 against 0.1500"
    assert found[RESTARTS] == "0.400 to 0.410"
    assert found[SEARCH] == "0.0010"
    assert found[TRANSFER] == "0.7500 against 0.8500"


def test_verdict() -> None:
    good, bad, skipped = (Check(name, "", "", passed) for name, passed in (("a", True), ("b", False), ("c", None)))
    assert verdict([good, good]) == "no sign of gradient masking in 2 checks"
    assert verdict([good, skipped]) == "no sign of gradient masking in 1 checks, 1 not run"
    assert verdict([good, bad, skipped, Check("d", "", "", False)]) == "suspicious: 2 of 4 checks failed (b; d)"
