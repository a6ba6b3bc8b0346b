"""Train a tagger, nominal or adversarial. The loop reads from top to bottom.

advtag train CONFIG
"""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import cross_entropy

from attacks import Attack
from attacks.attack import evaluation_mode
from attacks.build import build_attack, build_attacks
from common.errors import AdvtagError
from common.files import whole_file
from common.progress import progress_bar
from common.provenance import provenance
from configs.schema import Analysis, Training
from models.discriminators import discriminators
from models.features import load_features
from models.keys import reseed
from models.tagger import Tagger
from training.columns import Columns, Sample, read_columns
from training.standardise import scales, standardisation
from training.weights import PtEtaFlavourWeights

EVALUATION_BATCH = 8192
History = list[dict[str, Any]]


def train_all(analysis: Analysis, *, progress: bool = True) -> list[Path]:
    """Train every configured tagger; return their files, `output/taggers/NAME.safetensors`.

    Beside each: `NAME.history.json`, and a tagger file after each epoch in `checkpoints/NAME`.

    Raises:
        AdvtagError: no taggers are configured, no columns, columns of another card, a loss that diverges, or nowhere to
            write
    """
    if not analysis.training:
        raise AdvtagError("configuration: `advtag train` needs the key `training`")
    build_attacks(analysis.attacks)  # refuse a wrong one before anything is trained
    columns = read_columns(analysis.output / "columns")
    card = load_features(analysis.features)
    if columns.features.digest != card.digest:
        raise AdvtagError(
            f"{analysis.output / 'columns'}: made with feature card {columns.features.name!r} "
            f"({columns.features.digest}), the configuration says {card.name!r} ({card.digest}); "
            "run `advtag columns` again"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        # usual batches gain little from a second thread, and wait for it where the machine is shared: 7 s of training
        # became 34 s beside two other jobs on two cores
        torch.set_num_threads(1)
    paths = []
    with progress_bar("epochs", show=progress) as bar:
        for name, settings in analysis.training.items():
            task = bar.add_task(f"{name} on {device}", total=settings.epochs)

            checkpoints = analysis.output / "taggers" / "checkpoints" / name

            def after_epoch(
                tagger: Tagger, history: History, name: str = name, task: Any = task, folder: Path = checkpoints
            ) -> None:
                tagger.save(folder / f"epoch_{len(history):04d}.safetensors")
                last = history[-1]
                both = (last["auc_raw"], last["auc_attacked"])
                raw, attacked = ("undefined" if area is None else f"{area:.4f}" for area in both)
                bar.update(task, advance=1, description=f"{name}: BvsL {raw} raw, {attacked} {last['attack']}")

            tagger, history = train(columns, settings, analysis, name, device, after_epoch)
            path = analysis.output / "taggers" / f"{name}.safetensors"
            tagger.save(path)
            with whole_file(path.with_name(f"{name}.history.json")) as aside:
                aside.write_text(json.dumps(history, indent=1, allow_nan=False), encoding="utf-8")
            for stale in sorted(checkpoints.glob("epoch_*.safetensors"))[len(history) :]:  # of an earlier, longer run
                stale.unlink()
            paths.append(path)
    return paths


def finite(loss: float, name: str, epoch: int) -> float:
    """The loss itself.

    Raises:
        AdvtagError: the training has diverged
    """
    if not math.isfinite(loss):
        raise AdvtagError(
            f"training.{name}: the loss is {loss} after epoch {epoch}; lower `learning_rate`, or look at the weights"
        )
    return loss


def train(
    columns: Columns,
    settings: Training,
    analysis: Analysis,
    name: str,
    device: torch.device,
    after_epoch: Callable[[Tagger, History], None],
) -> tuple[Tagger, History]:
    """Train one tagger on one device; return it in evaluation mode, with the record of each epoch.

    Adversarial training replaces every batch by its attacked version from the current weights, and there is no
    clean batch beside it (A. Stein et al., Comput. Softw. Big Sci. 6 (2022) 15). Training and validation losses
    carry the same weights.
    """
    torch.manual_seed(settings.seed)
    attack = None if settings.attack is None else build_attack(analysis.attacks[settings.attack])
    test_attack = build_attack(analysis.attacks[settings.evaluate_with])
    tagger = new_tagger(columns, settings, analysis, name).to(device)
    weight, validation_weight = loss_weights(columns, device)
    sample, validation = columns.train.to(device), columns.validation.to(device)

    optimiser = torch.optim.Adam(tagger.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda epoch: 1 / (1 + epoch / 30))
    history: History = []
    for epoch in range(1, settings.epochs + 1):
        tagger.train()
        # a pure function of (seed, epoch), so that any epoch can be repeated
        order = torch.randperm(len(sample), generator=torch.Generator().manual_seed(settings.seed * 100_003 + epoch))
        order = order.to(device)
        total = torch.zeros((), device=device)
        for start in range(0, len(sample), settings.batch):
            jets = order[start : start + settings.batch]
            inputs, target = sample.inputs[jets], sample.target[jets]
            if attack is not None:
                inputs = attack(tagger, replace(inputs, key=reseed(inputs.key, epoch)), target)
            losses = cross_entropy(tagger(inputs.values, inputs.present), target, reduction="none")
            # |w|: a batch of a few jets whose signed weights cancel must not step a thousand times too far
            loss = (losses * weight[jets]).sum() / weight[jets].abs().sum().clamp(min=1e-6)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += loss.detach() * len(jets)
        schedule.step()
        # before any attack, which has no gradient to follow where the training has diverged
        mean_loss = finite(float(total) / len(sample), name, epoch)
        raw = scores(tagger, None, validation)
        attacked = scores(tagger, test_attack, validation)
        history.append(
            {
                "epoch": epoch,
                "loss": mean_loss,
                "validation_loss": float((raw["loss"] * validation_weight).sum() / validation_weight.abs().sum()),
                "auc_raw": auc(raw["BvsL"], validation, columns.classes),
                "auc_attacked": auc(attacked["BvsL"], validation, columns.classes),
                "attack": settings.evaluate_with,
            }
        )
        after_epoch(tagger, history)
    return tagger.eval(), history


def new_tagger(columns: Columns, settings: Training, analysis: Analysis, name: str) -> Tagger:
    """An untrained tagger, standardised with the training jets, that knows how it is going to be trained."""
    training = {"name": name, **json.loads(settings.model_dump_json()), "versions": provenance()}
    if settings.attack is not None:
        training["attack_parameters"] = json.loads(analysis.attacks[settings.attack].model_dump_json())
    mean, std = standardisation(columns.train.inputs)
    widths = scales(columns.train.inputs)
    return Tagger(
        columns.features, columns.classes, mean, std, network=settings.network, training=training, scales=widths
    )


def loss_weights(columns: Columns, device: torch.device) -> tuple[Tensor, Tensor]:
    """Weight of each training and each validation jet, float32 [jets] each: generator times pt-eta-flavour."""
    fitted = PtEtaFlavourWeights(*_arrays(columns.train), columns.train.weight.numpy(), len(columns.classes))
    weights = []
    for sample in (columns.train, columns.validation):
        weight = fitted(*_arrays(sample)) * sample.weight.numpy()
        weights.append(torch.from_numpy(weight.astype(np.float32)).to(device))
    return weights[0], weights[1]


def _arrays(sample: Sample) -> tuple[Any, Any, Any]:
    return sample.target.numpy(), sample.pt.numpy(), sample.eta.numpy()


def scores(tagger: Tagger, attack: Attack | None, sample: Sample) -> dict[str, Tensor]:
    """Cross entropy and discriminators of each jet, [jets] each, raw or attacked, in evaluation mode."""
    parts: list[dict[str, Tensor]] = []
    with evaluation_mode(tagger):
        for start in range(0, len(sample), EVALUATION_BATCH):
            batch = slice(start, start + EVALUATION_BATCH)
            inputs, target = sample.inputs[batch], sample.target[batch]
            if attack is not None:
                inputs = attack(tagger, inputs, target)
            with torch.no_grad():
                logits = tagger(inputs.values, inputs.present)
                loss = cross_entropy(logits, target, reduction="none")
            parts.append({"loss": loss, **discriminators(logits.softmax(1), tagger.classes)})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def auc(score: Tensor, sample: Sample, classes: tuple[str, ...]) -> float | None:
    """AUC of b (and bb) against udsg; None where one of them is missing (JSON has no NaN)."""
    target = sample.target.cpu()
    b_classes = torch.tensor([classes.index(name) for name in classes if name in ("b", "bb")])
    is_b, is_light = torch.isin(target, b_classes), target == classes.index("udsg")
    jets = is_b | is_light
    truth = is_b[jets].numpy()
    if truth.all() or not truth.any():
        return None
    return float(roc_auc_score(truth, score.cpu()[jets].numpy()))
