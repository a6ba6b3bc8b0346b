"""One attack on the jets of an evaluation, and what is kept of it on disk."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from attacks.attack import Attack
from attacks.distances import distances
from attacks.success import WorkingPoint, is_right
from common.errors import AdvtagError
from common.files import whole_file
from common.provenance import provenance
from models.discriminators import discriminators
from models.features import FeatureSet
from models.inputs import Inputs
from models.tagger import Tagger, load_tagger
from training.columns import Sample
from training.metrics import fooling_ratios, performance, roc_histograms, susceptibility, working_points
from training.suite import CHECK_JETS, Entry

BATCH = 4096
MISTAG = 0.01
"""The working point is the cut on BvsL that clean light jets pass this often: the medium one of CMS."""


@dataclass(frozen=True)
class Outcome:
    """What one run did."""

    jets: Tensor
    """int64 [attacked], places in the sample"""
    logits: Tensor
    """float32 [attacked, classes]"""
    record: dict[str, Any]
    """figures, for JSON"""


class Bench:
    """A tagger and jets, and what attacks do to them; a run that is kept on disk is not repeated."""

    def __init__(self, tagger: Tagger, sample: Sample, folder: Path) -> None:
        self.tagger, self.inputs, self.target, self.folder = tagger, sample.inputs, sample.target, folder
        self.weight = sample.weight
        self.logits = logits_of(tagger, self.inputs)
        self.right = is_right(self.logits, self.target, tagger.classes)
        self.working_point = medium_working_point(self.logits, sample, tagger.classes)
        clean = roc_histograms(self.scores(self.logits), self.target, tagger.classes, self.weight)
        self.thresholds = working_points(clean)
        self.clean = performance(clean, self.thresholds)

    def scores(self, logits: Tensor) -> dict[str, Tensor]:
        """Discriminators of jets, float [jets] each."""
        return discriminators(logits.softmax(1), self.tagger.classes)

    def performance(self, logits: Tensor, jets: slice | Tensor) -> dict[str, Any]:
        """How well the tagger separates jets with these logits, and what it lost against all clean jets."""
        weight, target = self.weight[jets], self.target[jets]
        found = roc_histograms(self.scores(logits), target, self.tagger.classes, weight)
        figures: dict[str, Any] = performance(found, self.thresholds)
        for name, figure in figures.items():
            figure["susceptibility"] = susceptibility(self.clean[name]["auc"], figure["auc"])
        return figures

    def fooled(self, logits: Tensor, jets: slice | Tensor) -> dict[str, Any]:
        """Fooling ratios by highest class and by the working point."""
        arguments = (self.logits[jets], logits, self.target[jets], self.tagger.classes)
        return {
            name: fooling_ratios(*arguments, weight=self.weight[jets], working_point=cut)
            for name, cut in (("argmax", None), ("working_point", self.working_point))
        }

    def run(self, name: str, entry: Entry, jets: Tensor | None = None, maker: Tagger | None = None) -> Outcome:
        """One attack: made on `maker` (None: the tagger), shown to the tagger; on `jets`, places int64 (None: all)."""
        if jets is None:
            number = min(len(self.inputs), CHECK_JETS) if entry.check else len(self.inputs)
            jets = torch.arange(number, device=self.target.device)
        inputs, target = self.inputs[jets], self.target[jets]
        maker = self.tagger if maker is None else maker
        digest = digest_of(repr(entry.attack), self.tagger, maker, inputs, target, self.working_point)
        path = self.folder / f"{name}.parquet"
        kept = read_run(path, digest, target.device)
        if kept is not None:
            return kept
        start = time.perf_counter()
        moved = moved_by(entry.attack, maker, inputs, target)
        seconds = time.perf_counter() - start
        logits = logits_of(self.tagger, moved)
        record = {
            "attack": repr(entry.attack),
            "jets": len(jets),
            "survivors": entry.survivors,
            "seconds": seconds,
            "fooled": self.fooled(logits, jets),
        }
        if not entry.survivors:
            record["performance"] = self.performance(logits, jets)
        if not (entry.survivors or entry.check):
            interval = entry.attack.interval(maker, inputs)
            record["distances"] = distances(self.tagger.features, inputs, moved, interval).to_dict()
        outcome = Outcome(jets, logits, record)
        write_run(path, digest, outcome)
        return outcome


def load_taggers(files: Sequence[Path], classes: tuple[str, ...], features: FeatureSet) -> dict[str, Tagger]:
    """Taggers by the name of their file, for columns with these classes and this feature card.

    Raises:
        AdvtagError: a file that cannot be read, a tagger of another card or of other classes, or two of one name
    """
    found: dict[str, Tagger] = {}
    for path in files:
        tagger = load_tagger(path, features)
        if tagger.classes != classes:
            raise AdvtagError(f"{path}: classes {', '.join(tagger.classes)}, but the columns have {', '.join(classes)}")
        if path.stem in found:
            raise AdvtagError(f"two taggers with the name {path.stem!r}; results go by name, rename one of the files")
        found[path.stem] = tagger
    return found


def medium_working_point(logits: Tensor, sample: Sample, classes: tuple[str, ...]) -> WorkingPoint:
    """The cut on BvsL that `MISTAG` of the clean light jets pass, counted with |w|."""
    score = discriminators(logits.softmax(1), classes)["BvsL"]
    light = (sample.target == classes.index("udsg")).cpu().numpy()
    if not light.any():
        return WorkingPoint("BvsL", 0.5)
    score, weight = score.double().cpu().numpy()[light], np.abs(sample.weight.cpu().numpy()[light])
    if not weight.any():
        return WorkingPoint("BvsL", 0.5)
    cut = np.quantile(score, 1 - MISTAG, weights=weight, method="inverted_cdf")
    return WorkingPoint("BvsL", float(np.clip(cut, 0, 1)))


def logits_of(tagger: Tagger, inputs: Inputs) -> Tensor:
    """Logits, float32 [jets, classes], batch by batch."""
    with torch.no_grad():
        return torch.cat([tagger(batch.values, batch.present) for batch in batches(inputs)])


def moved_by(attack: Attack, tagger: Tagger, inputs: Inputs, target: Tensor) -> Inputs:
    """Attacked jets: batch by batch, unless the attack looks at all of them."""
    if not attack.per_jet or not len(inputs):
        return attack(tagger, inputs, target)
    true = target.split(BATCH)  # type: ignore[no-untyped-call]
    parts = [attack(tagger, batch, part).values for batch, part in zip(batches(inputs), true, strict=True)]
    return inputs.moved(torch.cat(parts))


def batches(inputs: Inputs) -> Iterator[Inputs]:
    """Jets in batches; one empty batch if there is none."""
    for start in range(0, max(len(inputs), 1), BATCH):
        yield inputs[start : start + BATCH]


def digest_of(*parts: object) -> str:
    """Hash of all that a run depends on."""
    found = hashlib.sha256(json.dumps(provenance()).encode())
    for part in parts:
        if isinstance(part, Tagger):
            found.update(part.to_bytes())
        elif isinstance(part, Inputs):
            for tensor in (part.values, part.present, part.key, part.weight):
                found.update(b"" if tensor is None else tensor.cpu().numpy().tobytes())
        elif isinstance(part, Tensor):
            found.update(part.cpu().numpy().tobytes())
        else:
            found.update(repr(part).encode())
    return found.hexdigest()


def write_run(path: Path, digest: str, outcome: Outcome) -> None:
    """Keep a run: Parquet, logits by jet, and figures and digest in the metadata."""
    columns = {"jet": outcome.jets.cpu().numpy()}
    columns |= {f"logit_{k}": outcome.logits[:, k].cpu().numpy() for k in range(outcome.logits.shape[1])}
    page = json.dumps({"digest": digest, "record": outcome.record}, allow_nan=False)
    with whole_file(path) as aside:
        pq.write_table(pa.table(columns).replace_schema_metadata({"advtag": page}), aside, compression="zstd")


def read_run(path: Path, digest: str, device: torch.device) -> Outcome | None:
    """A kept run; None if there is none, or if it was another one."""
    try:
        table = pq.read_table(path)
        page = json.loads(table.schema.metadata[b"advtag"])
        if page["digest"] != digest:
            return None
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
    names = [name for name in table.column_names if name.startswith("logit_")]
    logits = np.stack([table[name].to_numpy() for name in names], axis=1)
    jets = torch.from_numpy(table["jet"].to_numpy().copy())
    return Outcome(jets.to(device), torch.from_numpy(logits).to(device), page["record"])
