"""From events to selected jets: kinematics, truth, weight, and the inputs that the feature card asks for."""

from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from common.errors import AdvtagError
from configs.schema import Selection
from models.classes import CLASSES
from models.features import FeatureSet, Input
from processors.constituents import constituents

NO_TRUTH = len(CLASSES)
"""Code of the flavour of a jet in data."""
FLAVOURS = (*CLASSES, "data")
"""Names of the codes of `flavour`."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Jets:
    """The selected jets of a chunk, arrays [jets]; `values` and `present` are [jets, features]."""

    owner: Ints
    """Row of the jet's event in the chunk."""
    index: Ints
    """Place of the jet in its event."""
    pt: Floats
    """GeV"""
    eta: Floats
    phi: Floats
    flavour: NDArray[np.int8]
    """Index into CLASSES, or NO_TRUTH."""
    weight: NDArray[np.float64]
    """Generator weight; 1 for data."""
    run: Ints
    lumi: Ints
    event: Ints
    values: Floats
    """Absent entries are 0."""
    present: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.pt)


def numbers(events: Any, name: str) -> NDArray[Any]:
    """A branch as one flat numpy array: [jets] of all events for a collection's branch, [events] otherwise."""
    array = events[name]
    return np.asarray(ak.to_numpy(ak.flatten(array, axis=None) if array.ndim > 1 else array))


def event_weights(events: Any, data: bool) -> NDArray[np.float64]:
    """Generator weight of each event, float64 [events]; 1 for data.

    What normalises MC is the sum over all generated events (`processors.fileset.File.sum_weights`), which is this one's
    only in files that nobody has skimmed.

    Raises:
        AdvtagError: a weight is not a finite number
    """
    if data:
        return np.ones(len(events))
    weights = numbers(events, "genWeight").astype(np.float64)
    if not np.isfinite(weights).all():
        chunk = events.metadata
        raise AdvtagError(
            f"{chunk['filename']}: genWeight holds {np.count_nonzero(~np.isfinite(weights))} values that are not "
            f"finite (dataset {chunk['dataset']!r}); drop the file"
        )
    return weights


def read_jets(events: Any, features: FeatureSet, selection: Selection, *, data: bool) -> Jets:
    """Select jets and read their inputs.

    Truth branches of data are never touched. b, bb, c and udsg follow A. Stein et al. (CMS thesis study): bb is
    hadronFlavour 5 with more than one b hadron; without Jet_nBHadrons (central NanoAOD) all of them are b.
    """
    per_event = ak.to_numpy(ak.num(events["Jet_pt"]))
    pt, eta = numbers(events, "Jet_pt"), numbers(events, "Jet_eta")
    low, high = selection.pt
    chosen = np.flatnonzero((pt >= low) & (pt <= high) & (np.abs(eta) <= selection.abs_eta))
    owner = np.repeat(np.arange(len(events)), per_event)[chosen]
    first = np.cumsum(per_event) - per_event
    values, present = read_inputs(events, features, chosen, owner)
    run, lumi, event = (numbers(events, name).astype(np.int64)[owner] for name in ("run", "luminosityBlock", "event"))
    return Jets(
        owner=owner,
        index=chosen - first[owner],
        pt=pt[chosen],
        eta=eta[chosen],
        phi=numbers(events, "Jet_phi")[chosen],
        flavour=np.full(len(chosen), NO_TRUTH, np.int8) if data else truth(events, chosen),
        weight=event_weights(events, data)[owner],
        run=run,
        lumi=lumi,
        event=event,
        values=values,
        present=present,
    )


def truth(events: Any, chosen: Ints) -> NDArray[np.int8]:
    """Class of each chosen jet, int8 [jets], an index into CLASSES."""
    hadron = numbers(events, "Jet_hadronFlavour")[chosen].astype(np.int64)
    flavour = np.full(len(hadron), CLASSES.index("udsg"), np.int8)
    flavour[hadron == 4] = CLASSES.index("c")
    flavour[hadron == 5] = CLASSES.index("b")
    if "Jet_nBHadrons" in events.fields:
        flavour[(hadron == 5) & (numbers(events, "Jet_nBHadrons")[chosen] > 1)] = CLASSES.index("bb")
    return flavour


def read_inputs(events: Any, features: FeatureSet, chosen: Ints, owner: Ints) -> tuple[Floats, NDArray[np.bool_]]:
    """Values and presence of the card's inputs, each [jets, features], by the card's rules alone.

    The memory is feature-major, because everything that follows but the network looks at one feature at a time.
    """
    values = np.zeros((len(features), len(chosen)), np.float32)
    present = np.zeros((len(features), len(chosen)), np.bool_)
    rules: dict[str, NDArray[Any]] = {}
    asked = {name for feature in features.inputs for name in feature.branch}
    asked |= {feature.present.branch for feature in features.inputs if feature.present is not None}
    derived = constituents(events, asked, chosen)

    def of_jets(name: str) -> NDArray[Any]:
        if name in derived:
            return derived[name]
        array = numbers(events, name)
        return array[owner if events[name].ndim == 1 else chosen]

    for row, feature in enumerate(features.inputs):
        name = next((name for name in feature.branch if name in events.fields), feature.branch[-1])
        found = of_jets(name)
        rule = feature.present
        if rule is not None and rule.branch not in rules:
            rules[rule.branch] = of_jets(rule.branch)
        there = presence(feature, found, None if rule is None else rules[rule.branch])
        present[row] = there
        np.copyto(values[row], found, where=there, casting="unsafe")
    return values.T, present.T


def presence(feature: Input, found: NDArray[Any], ruling: NDArray[Any] | None) -> NDArray[np.bool_]:
    """Apply one input's rule: bool [jets], True where the entry exists.

    Args:
        feature: the input
        found: [jets] as read; may hold anything where the entry is absent
        ruling: [jets] of the branch that the rule looks at
    """
    there: NDArray[np.bool_] = np.isfinite(found)
    for sentinel in feature.sentinels:
        there &= found != sentinel
    if feature.present is not None and ruling is not None:
        if feature.present.one_of is not None:
            there &= np.isin(ruling, feature.present.one_of)
        else:
            threshold = feature.slot if feature.present.above == "slot" else feature.present.above
            there &= ruling > threshold
    return there
