"""Train taggers, nominal or adversarial. The loop, `train`, reads from top to bottom.

advtag train CONFIG
"""

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attacks.build import build_attack, build_attacks
from attacks.checks import unchecked
from common.errors import AdvtagError
from common.progress import progress_bar
from common.provenance import provenance
from configs.attacks import Attack as AttackConfig
from configs.schema import Analysis
from configs.training import Fold, Training
from models.features import load_features
from models.tagger import Tagger
from training.batches import batches_of
from training.cache import Cache, open_cache
from training.checkpoint import Checkpoint, History, Progress
from training.distributed import World, world
from training.optimise import build_optimiser, build_schedule
from training.records import Records
from training.schemes import Scheme, build_scheme
from training.standardise import scales, standardisation
from training.stopping import Stopping
from training.validation import Validation
from training.weights import PtEtaFlavourWeights

SAVE_EVERY = 600.0
"""Seconds between checkpoints inside an epoch."""


def train_all(
    analysis: Analysis, *, restart: bool = False, minutes: float | None = None, progress: bool = True
) -> list[Path]:
    """Train every configured tagger; return their files, `output/taggers/NAME.safetensors`.

    A training that was interrupted goes on from its last checkpoint; one that is complete is left alone. What is
    written beside the taggers: see `training.records`.

    Args:
        analysis: the configuration
        restart: begin anew, whatever checkpoints there are
        minutes: save and leave with exit code 85 after so long, for HTCondor to start the job again
        progress: show a progress bar

    Raises:
        AdvtagError: no taggers are configured, bad columns, columns of another card, a loss that diverges, a checkpoint
            that is damaged or of another configuration, or nowhere to write
        SystemExit: asked to leave; everything is saved
    """
    if not analysis.training:
        raise AdvtagError("configuration: `advtag train` needs the key `training`")
    build_attacks(analysis.attacks)  # refuse a wrong one before anything is trained
    for settings in analysis.training.values():
        scheme_of(settings, analysis)
    caches = {settings.fold: _cache(analysis, settings.fold) for settings in analysis.training.values()}
    folder = analysis.output / "taggers"
    with world() as here, Stopping(minutes) as stopping, progress_bar("epochs", show=progress and here.writes) as bar:
        one_thread_on(here.device)
        for name, settings in analysis.training.items():
            task = bar.add_task(f"{name} on {here.device}", total=settings.epochs)

            def show(history: History, name: str = name, task: Any = task, epochs: int = settings.epochs) -> None:
                bar.update(task, completed=len(history), description=f"{name}: {summary(history[-1])}")
                if here.writes and not progress:  # a batch job, whose output is looked at while it runs
                    print(f"{name}: epoch {len(history)} of {epochs}: {summary(history[-1])}", file=sys.stderr)

            records = Records(folder, name)
            train(caches[settings.fold], settings, analysis, records, here, stopping, restart=restart, after_epoch=show)
    return [folder / f"{name}.safetensors" for name in analysis.training]


def train(
    cache: Cache,
    settings: Training,
    analysis: Analysis,
    records: Records,
    here: World,
    stopping: Stopping,
    *,
    restart: bool = False,
    after_epoch: Callable[[History], None] = lambda _: None,
) -> Tagger:
    """Train one tagger, from its last checkpoint if there is one; return it in evaluation mode.

    Training and validation losses carry the same weights. The tagger is that of the last epoch; the one with the lowest
    validation loss is kept beside it.

    Raises:
        AdvtagError, SystemExit: see `train_all`
    """
    torch.manual_seed(settings.seed)
    attack, scheme = attack_of(settings, analysis), scheme_of(settings, analysis)
    weights = PtEtaFlavourWeights.fit(cache.train, len(cache.classes), settings.weights)
    tagger = new_tagger(cache, settings, attack, records.name).to(here.device)
    parameters = list(tagger.network.parameters())
    optimiser = build_optimiser(settings, parameters)
    schedule = build_schedule(settings, optimiser)
    batches = batches_of(
        cache.train, weights, batch=settings.batch, seed=settings.seed, device=here.device, data=settings.data
    )
    tests = {name: build_attack(analysis.attacks[name]) for name in settings.evaluate_with}
    validation = Validation(cache.validation, settings, weights, tests, here.device)
    checkpoint = Checkpoint(records.checkpoint, digest_of(cache, settings, attack), tagger, optimiser, schedule)
    here.reseed(settings.seed)
    progress = (None if restart else checkpoint.restore(here.device)) or Progress.start(here.device)

    def update(loss: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        here.average_(parameters)
        if settings.clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimiser.step()

    while progress.epoch <= settings.epochs and not out_of_patience(settings, progress.history):
        tagger.train()
        start = saved = time.monotonic()
        with closing(batches.epoch(progress.epoch, progress.step)) as jets:
            for batch in map(here.share, jets):
                with torch.autocast(here.device.type, torch.bfloat16, enabled=settings.autocast), unchecked():
                    loss = scheme(tagger, batch, progress.epoch, progress.step, update)
                progress.add(loss, len(batch.target))
                leaving = here.agree(stopping.wanted)
                if here.writes and (leaving or time.monotonic() > saved + SAVE_EVERY):
                    checkpoint.save(progress)
                    saved = time.monotonic()
                if leaving:
                    raise SystemExit(stopping.exit_code)
        # before any attack, which has no gradient to follow where the training has diverged
        mean = finite(progress.mean, records.name, progress.epoch)
        rate = {"learning_rate": optimiser.param_groups[0]["lr"], "seconds": time.monotonic() - start}
        schedule.step()
        best = progress.end_epoch({"loss": mean, **rate, **validation(tagger)}, judged_by(settings))
        if here.writes:
            records.epoch(tagger, progress.history, best=best)
            checkpoint.save(progress)
        after_epoch(progress.history)
    if here.writes:
        records.end(tagger, len(progress.history))
    return tagger.eval()


def _cache(analysis: Analysis, fold: Fold | None) -> Cache:
    cache = open_cache(analysis.output / "columns", fold)
    card = load_features(analysis.features)
    if cache.features.digest != card.digest:
        raise AdvtagError(
            f"{analysis.output / 'columns'}: made with feature card {cache.features.name!r} "
            f"({cache.features.digest}), the configuration says {card.name!r} ({card.digest}); "
            "run `advtag columns` again"
        )
    return cache


def attack_of(settings: Training, analysis: Analysis) -> AttackConfig | None:
    """The attack of the training, whether it is written there or named."""
    return analysis.attacks[settings.attack] if isinstance(settings.attack, str) else settings.attack


def described(attack: AttackConfig) -> dict[str, Any]:
    """The parameters of an attack. A table of uncertainties is named by its contents: its path is another wherever a
    batch job runs.
    """
    parameters: dict[str, Any] = json.loads(attack.model_dump_json())
    if isinstance(attack.scale, Path):
        parameters["scale"] = (
            f"{attack.scale.name}, sha256 {hashlib.sha256(attack.scale.read_bytes()).hexdigest()[:16]}"
        )
    return parameters


def scheme_of(settings: Training, analysis: Analysis) -> Scheme:
    """How the training treats a batch.

    Raises:
        AdvtagError: the scheme does not go with the attack
    """
    attack = attack_of(settings, analysis)
    return build_scheme(settings, None if attack is None else build_attack(attack))


def one_thread_on(device: torch.device) -> None:
    """Usual batches gain little from a second CPU thread, and wait for it where the machine is shared: 7 s of training
    became 34 s beside two other jobs on two cores.
    """
    if device.type == "cpu":
        torch.set_num_threads(1)


def judged_by(settings: Training) -> str:
    """Whose validation loss says which epoch is the best: the first attack's, if the training is adversarial."""
    return settings.evaluate_with[0] if settings.attack is not None and settings.evaluate_with else "raw"


def out_of_patience(settings: Training, history: History) -> bool:
    """No lower validation loss for `patience` epochs."""
    if settings.patience is None or not history:
        return False
    losses = [epoch["validation_loss"][judged_by(settings)] for epoch in history]
    return len(losses) - 1 - losses.index(min(losses)) >= settings.patience


def digest_of(cache: Cache, settings: Training, attack: AttackConfig | None) -> str:
    """Hash of all that decides the weights of each epoch. Their number does not, unless the schedule looks at it: a
    training can be made longer.
    """
    open_ended = {"patience"} if settings.schedule == "cosine" else {"patience", "epochs"}
    parts = [
        cache.digest,
        settings.model_dump_json(exclude={*open_ended, "attack"}),
        "" if attack is None else json.dumps(described(attack)),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def new_tagger(cache: Cache, settings: Training, attack: AttackConfig | None, name: str) -> Tagger:
    """An untrained tagger, standardised with the training jets, that knows how it is going to be trained."""
    training = {"name": name, **json.loads(settings.model_dump_json()), "versions": provenance()}
    if attack is not None:
        training["attack_parameters"] = described(attack)
        training["attack"] = settings.attack if isinstance(settings.attack, str) else described(attack)
    mean, std = standardisation(cache.train)
    return Tagger(
        cache.features,
        cache.classes,
        mean,
        std,
        network=settings.network,
        parameters=settings.parameters,
        training=training,
        scales=scales(cache.train),
    )


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


def summary(epoch: dict[str, Any]) -> str:
    """Areas of BvsL, raw and attacked, in a few words."""
    areas = {name: areas["BvsL"] for name, areas in epoch["auc"].items()}
    return "BvsL " + ", ".join(
        f"{name} {'undefined' if area is None else format(area, '.4f')}" for name, area in areas.items()
    )
