"""Sections of attacks and presets: every parameter, with the attack's own default, and errors that name the key."""

import inspect
import json
import math
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic_core import PydanticUndefined

from attacks import Budget
from attacks.build import ATTACKS, build_attack
from common.errors import AdvtagError
from configs.attacks import Attack, attack_config, presets
from configs.load import load_analysis
from configs.schema import Analysis

SECTIONS = {get_args(section.model_fields["kind"].annotation)[0]: section for section in get_args(get_args(Attack)[0])}
UNBOUNDED = ("rdsa", "conserv", "conserv-reference")
WRITTEN = {"name": "toy", "output": "out", "features": "deepcsv", "datasets": {"tt": {"files": "x.root"}}}


def load(folder: Path, attacks, overrides=()) -> Analysis:
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump({**WRITTEN, "attacks": attacks}))
    return load_analysis(path, overrides)


def refused(folder: Path, attack, overrides=()) -> str:
    with pytest.raises(AdvtagError) as error:
        load(folder, {"mine": attack}, overrides)
    text = str(error.value)
    assert "\n" not in text
    return text.removeprefix(f"{folder / 'toy.yaml'}: ")


def test_every_kind_has_a_section() -> None:
    assert set(SECTIONS) == set(ATTACKS)
    assert len(set(ATTACKS.values())) == len(ATTACKS)


@pytest.mark.parametrize("kind", ATTACKS)
def test_a_section_has_every_parameter_with_the_default_of_the_attack(kind) -> None:
    section = dict(SECTIONS[kind].model_fields)
    assert section.pop("kind").is_required()
    for field in fields(Budget):
        assert section[field.name].default == (PydanticUndefined if field.name == "epsilon" else field.default)
        del section[field.name]
    parameters = dict(inspect.signature(ATTACKS[kind]).parameters)
    assert parameters.pop("budget").kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert set(parameters) == set(section)
    for name, parameter in parameters.items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert section[name].default == parameter.default, name
        assert type(section[name].default) is type(parameter.default), name


@pytest.mark.parametrize("kind", ATTACKS)
def test_built_from_defaults(kind) -> None:
    built = build_attack(attack_config({"kind": kind, "epsilon": 0.1}))
    assert type(built) is ATTACKS[kind]
    assert repr(built) == repr(ATTACKS[kind](Budget(epsilon=0.1)))


CHANGED = {
    "systematic": {"shift": {"pt": -0.5}},
    "pgd": {"steps": 3, "step_size": 0.5, "restarts": 2, "norm": "l2"},
    "apgd": {"steps": 7, "restarts": 2, "objective": "dlr"},
    "square": {"queries": 9, "fraction": 0.1},
    "pip": {"steps": 2, "sharpness": 3.0, "maximum": "batch", "features": ("n",)},
    "pip-pgd": {"steps": 4, "step_size": 0.2, "maximum": "batch", "features": ("n", "m"), "random_start": True},
    "rdsa": {"features": 3, "attempts": 4, "pt_edges": (0.0, 1.0), "eta_edges": (0.0, 2.0)},
    "minifool": {"alpha": 0.0, "beta": 1.0, "steps": 2, "learning_rate": 0.2, "scales": (0.5, 1.0)},
    "conserv": {"iterations": 2, "candidates": 3, "js_cap": 0.1, "correlation_cap": 0.2, "within": "sample"},
}


@pytest.mark.parametrize("kind", CHANGED)
def test_built_with_other_parameters(kind) -> None:
    keys = {**CHANGED[kind], "seed": 5}
    built = build_attack(attack_config({"kind": kind, "epsilon": 0.2, "scale": "core", "capped": False, **keys}))
    assert built.budget == Budget(epsilon=0.2, scale="core", capped=False)
    assert {name: getattr(built, name) for name in keys} == keys


@pytest.mark.parametrize("kind", [kind for kind in ATTACKS if "working_point" in SECTIONS[kind].model_fields])
def test_working_point(tmp_path, kind) -> None:
    from attacks.success import WorkingPoint

    cut = {"discriminator": "CvsL", "threshold": 0.25}
    attack = {"kind": kind, "epsilon": 0.1, "working_point": cut}
    assert build_attack(load(tmp_path, {"mine": attack}).attacks["mine"]).working_point == WorkingPoint("CvsL", 0.25)
    where = "attacks.mine.working_point"
    assert refused(tmp_path, {**attack, "working_point": {**cut, "treshold": 1}}).startswith(
        f"{where}.treshold: unknown key; did you mean 'threshold'?"
    )
    for threshold in (math.nan, -0.1, 1.1):
        text = refused(tmp_path, {**attack, "working_point": {**cut, "threshold": threshold}})
        assert text.startswith(f"{where}.threshold: ")
    assert refused(tmp_path, {**attack, "working_point": {**cut, "discriminator": "b"}}).startswith(f"{where}.disc")


@pytest.mark.parametrize("name", presets())
def test_every_preset_builds_and_says_where_it_is_from(name, tmp_path) -> None:
    written = presets()[name]
    assert len(written["source"]) > 20
    attack = load(tmp_path, {"mine": {"preset": name}}).attacks["mine"]
    assert (
        attack == attack_config({"preset": name}) == attack_config({k: v for k, v in written.items() if k != "source"})
    )
    built = build_attack(attack)
    assert type(built) is ATTACKS[written["kind"]]
    for key, value in written.items():
        if key not in ("source", "kind"):
            assert getattr(built.budget if hasattr(built.budget, key) else built, key) == value, key


def test_epsilon_and_scale_of_published_studies() -> None:
    """From the papers and codes, see the sources; nothing here is read from the presets."""
    published = {
        "stein2021": (0.01, "std", False),
        "csbs2022": (0.01, "std", True),
        "csbs2022-strong": (0.02, "std", True),
        "deepjet2022": (0.01, "quantile", False),
        "deepjet2023": (0.1, "core", True),
        "robustpart2023": (0.01, "core", False),
        "bhive2025-pgd": (0.1, "core", False),
        "conserv2026": (math.inf, "std", False),
        "rdsa2025": (math.inf, "std", False),
    }
    for name, numbers in published.items():
        attack = attack_config({"preset": name})
        assert (attack.epsilon, attack.scale, attack.capped) == numbers, name
    thesis = build_attack(attack_config({"preset": "bhive2025-pgd"}))
    assert thesis.steps * thesis.step_size == pytest.approx(1)  # it can just reach the wall
    assert not thesis.random_start


def test_preset_with_changes_on_top(tmp_path) -> None:
    attacks = {"mine": {"preset": "bhive2025-pgd", "epsilon": 0.3, "steps": 7}, "plain": {"preset": "bhive2025-pgd"}}
    analysis = load(tmp_path, attacks, ["attacks.plain.restarts=1", "attacks.more={preset: rdsa2025, features: 2}"])
    mine, plain, more = (analysis.attacks[name] for name in ("mine", "plain", "more"))
    assert (mine.kind, mine.epsilon, mine.steps, mine.scale, mine.random_start) == ("pgd", 0.3, 7, "core", False)
    assert (plain.epsilon, plain.steps) == (0.1, 3)
    assert (more.kind, more.features, more.attempts) == ("rdsa", 2, 25)
    assert load(tmp_path, {"mine": {"preset": "stein2021", "kind": "noise"}}).attacks["mine"].kind == "noise"
    assert presets()["bhive2025-pgd"]["epsilon"] == 0.1  # nothing was written into the presets


@pytest.mark.parametrize(
    ("attack", "text"),
    [
        ({"preset": "csbs2021"}, "attacks.mine: no preset 'csbs2021'; known: stein2021, stein2021-noise, csbs2022"),
        ({"preset": ["csbs2022"]}, "attacks.mine: no preset ['csbs2022']; known: "),
        ({"preset": {}}, "attacks.mine: no preset {}; known: "),
        ({"preset": None}, "attacks.mine: no preset None; known: "),
        ({"preset": "stein2021", "steps": 3}, "attacks.mine.steps: unknown key; known: epsilon, scale, capped, seed"),
        ({"preset": "stein2021", "epsilon": -3}, "attacks.mine.epsilon: "),
        ({"kind": "pdg", "epsilon": 1}, "attacks.mine: Input tag 'pdg' found using 'kind' does not match any"),
        ({"epsilon": 1}, "attacks.mine: Unable to extract tag using discriminator 'kind'"),
        ({"kind": "pgd"}, "attacks.mine.epsilon: Field required"),
        ({"kind": "pgd", "epsilon": 1, "stepsize": 1}, "attacks.mine.stepsize: unknown key; did you mean 'step_size'?"),
        ({"kind": "square", "epsilon": 1, "steps": 1}, "attacks.mine.steps: unknown key; "),
        ({"kind": "square", "epsilon": 1, "fraction": 0}, "attacks.mine.fraction: "),
        ({"kind": "pgd", "epsilon": 1, "steps": 0}, "attacks.mine.steps: "),
        ({"kind": "pgd", "epsilon": 1, "step_size": math.inf}, "attacks.mine.step_size: "),
        ({"kind": "minifool", "epsilon": 1, "scales": []}, "attacks.mine.scales: "),
        ({"kind": "systematic", "epsilon": 1, "shift": "upwards"}, "attacks.mine.shift"),
        ({"kind": "systematic", "epsilon": 1, "shift": {"pt": 2}}, "attacks.mine.shift"),
        ({"kind": "noise", "epsilon": 1, "seed": -1}, "attacks.mine.seed: "),
        ({"kind": "noise", "epsilon": 1, "scale": 3}, "attacks.mine.scale"),
        ("stein2021", "attacks.mine: Input should be a valid dictionary"),
    ],
    ids=str,
)
def test_refused_in_words_that_name_the_key(tmp_path, attack, text) -> None:
    assert refused(tmp_path, attack).startswith(text)
    with pytest.raises(AdvtagError, match=r"^attack[.:]") as error:
        attack_config(attack)
    assert "Value error" not in str(error.value)


@pytest.mark.parametrize("kind", ATTACKS)
def test_size_of_an_attack(tmp_path, kind) -> None:
    for wrong in (math.nan, -0.1, -math.inf, None, "much", *(() if kind in UNBOUNDED else (math.inf,))):
        assert refused(tmp_path, {"kind": kind, "epsilon": wrong}).startswith("attacks.mine.epsilon: ")
    for right in (0, 1e-9, 30, *((math.inf,) if kind in UNBOUNDED else ())):
        attack = load(tmp_path, {"mine": {"kind": kind, "epsilon": right}}).attacks["mine"]
        assert attack.epsilon == right
        assert build_attack(attack).budget.epsilon == right
    if kind in UNBOUNDED:
        assert not ATTACKS[kind].bounded


@pytest.mark.parametrize("epsilon", [math.inf, 0.1])
def test_json_round_trip(tmp_path, epsilon) -> None:
    """Infinity is not JSON: it is written as a string."""
    attacks = {
        "mine": {"preset": "rdsa2025", "epsilon": epsilon},
        "other": {"kind": "fgsm", "epsilon": 1, "scale": "t.yaml"},
    }
    analysis = load(tmp_path, attacks)
    text = analysis.model_dump_json()
    page = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert page["attacks"]["mine"]["epsilon"] == ("Infinity" if epsilon == math.inf else 0.1)
    assert Analysis.model_validate_json(text) == Analysis.model_validate(page) == analysis
    printed = yaml.safe_dump(analysis.model_dump(mode="json"))  # as --dry-run does
    assert Analysis.model_validate(yaml.safe_load(printed)) == analysis


def test_scale_table_is_relative_to_the_configuration(tmp_path, monkeypatch) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t.yaml").write_text("uncertainties: {pt: 0.5, eta: 2}")
    monkeypatch.chdir("/")
    relative, absolute = "tables/t.yaml", str(tmp_path / "tables" / "t.yaml")
    scales = {"a": relative, "b": absolute, "c": "core", "d": "nothing.yaml"}
    analysis = load(tmp_path, {name: {"kind": "fgsm", "epsilon": 1, "scale": scale} for name, scale in scales.items()})
    assert analysis.attacks["a"].scale == analysis.attacks["b"].scale == Path(absolute)
    assert analysis.attacks["c"].scale == "core"
    assert build_attack(analysis.attacks["a"]).budget.scale == {"pt": 0.5, "eta": 2.0}
    with pytest.raises(AdvtagError, match=r"nothing\.yaml: cannot read the table of uncertainties \(No such file"):
        build_attack(analysis.attacks["d"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "[1, 2]",
        "pt: 0.5",
        "uncertainties:",
        "uncertainties: 3",
        "uncertainties: {pt: much}",
        "a: [",
        "\x00",
        "uncertainties: {pt: [1]}",
    ],
)
def test_a_file_that_is_no_table(tmp_path, text) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(
        AdvtagError, match=r"t\.yaml: not a table of uncertainties \(.*expected `uncertainties: "
    ) as error:
        build_attack(attack_config({"kind": "fgsm", "epsilon": 1, "scale": path}))
    assert "\n" not in str(error.value)


def test_a_binary_file_is_no_table(tmp_path) -> None:
    (tmp_path / "t.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(AdvtagError, match="not a table of uncertainties"):
        build_attack(attack_config({"kind": "fgsm", "epsilon": 1, "scale": tmp_path / "t.yaml"}))
