"""The loss around jets: along the direction of an attack, and along a random one of the same length.

A tagger whose loss rises steeply in one direction and hardly in others is vulnerable although noise does nothing to it.
A. Stein, "Improving robustness of jet tagging algorithms with adversarial training: exploring the loss surface",
arXiv:2303.14511, moves two chosen inputs; here all inputs move, as in an attack.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attacks.attack import Attack, evaluation_mode
from attacks.budget import Interval
from attacks.gradient import objective_of
from models.keys import reseed, uniform
from models.tagger import Tagger
from training.columns import Sample

REACH = 2.0
"""How far the figures go, in units of the attack's own size."""
LINE = tuple(np.linspace(-REACH, REACH, 41).round(3).tolist())
GRID = tuple(np.linspace(-REACH, REACH, 17).round(3).tolist())
QUANTILES = (0.16, 0.5, 0.84)


def directions(attack: Attack, tagger: Tagger, sample: Sample, *, seed: int) -> tuple[Interval, Tensor, Tensor]:
    """Where jets may go, the move of the attack, and a random move; the latter float [jets, features].

    The random move changes every entry by as much as the attack does, up or down by a hash of the jet's key. Absent
    and integer entries, and those that the card freezes, stay; those that follow another follow it. Moves end at the
    card's caps, if these hold, and at physical ranges.
    """
    inputs = sample.inputs
    # twice: in the corner of the plane both moves add up
    interval = replace(attack.budget, epsilon=2 * REACH * attack.budget.epsilon).interval(tagger, inputs)
    moved = attack(tagger, inputs, sample.target)
    along = torch.where(interval.free, moved.values - inputs.values, 0)
    sign = torch.where(uniform(reseed(inputs.key, seed), inputs.values.shape[1], 0) < 0.5, -1.0, 1.0)
    return interval, along, along.abs() * sign.to(along)


def increase(tagger: Tagger, sample: Sample, interval: Interval, move: Tensor, clean: Tensor) -> Tensor:
    """By how much the cross entropy of each jet is above the clean one after a move, float [jets]."""
    values = interval.project(sample.inputs.values + move)
    return objective_of(tagger, sample.inputs, sample.target, values) - clean


def surface_table(
    attack: Attack, tagger: Tagger, sample: Sample, *, jet: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """The loss of some jets around where they are; jets count 1. Lengths are in units of the attack, which ends at 1.

    Args:
        attack: made on the tagger
        tagger: in evaluation mode for the while
        sample: the jets
        jet: place of the one that is looked at alone; None: that whose increase under the attack is the lower median
        seed: of the random direction

    Returns:
        `clean`, the mean loss; for `attack` and `random`, along `LINE`: `mean` increase, and its `quantiles` over jets,
        as in `QUANTILES`; in the plane of both, [random][attack] on `GRID`: `plane`, the mean increase, and `jet`,
        that of one jet, with its place in the sample, class code, pt (GeV) and eta
    """
    with evaluation_mode(tagger):
        interval, along, random = directions(attack, tagger, sample, seed=seed)
        clean = objective_of(tagger, sample.inputs, sample.target, sample.inputs.values)

        def at(first: float, second: float) -> Tensor:
            return increase(tagger, sample, interval, first * along + second * random, clean)

        lines = {
            "attack": torch.stack([at(t, 0) for t in LINE]),
            "random": torch.stack([at(0, t) for t in LINE]),
        }
        plane = torch.stack([torch.stack([at(x, y) for x in GRID]) for y in GRID])
        if jet is None:
            jet = int(at(1, 0).argsort(stable=True)[(len(sample) - 1) // 2])
    return {
        "clean": float(clean.double().mean()),
        **{name: _line(losses) for name, losses in lines.items()},
        "plane": plane.double().mean(2).tolist(),
        "jet": {
            "place": jet,
            "class": int(sample.target[jet]),
            "pt": float(sample.pt[jet]),
            "eta": float(sample.eta[jet]),
            "plane": plane[..., jet].tolist(),
        },
    }


def _line(losses: Tensor) -> dict[str, Any]:
    """Mean and quantiles over jets of losses, [points, jets]."""
    losses = losses.double()
    levels = torch.tensor(QUANTILES, dtype=torch.float64, device=losses.device)
    return {"mean": losses.mean(1).tolist(), "quantiles": losses.quantile(levels, dim=1).tolist()}
