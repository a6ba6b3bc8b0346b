"""A feature card of three inputs and its untrained taggers: jobs on it take a second."""

from pathlib import Path

import yaml

from tests.conftest import make_tagger

INPUTS = [
    {"name": "eta", "branch": "Jet_eta", "bounds": [-5, 5], "bins": [50, -2.5, 2.5], "label": "jet η"},
    {"name": "pt", "branch": "Jet_pt", "bounds": [0, None], "bins": [50, 0, 400], "label": "jet pT", "unit": "GeV"},
    {
        "name": "nTracks",
        "branch": "Jet_DeepCSV_jetNTracksEtaRel",
        "integer": True,
        "bounds": [0, None],
        "bins": [4, 0, 4],
        "label": "number of tracks",
    },
]


def write_card(folder):
    """Sections `features` and `taggers` of a configuration in the folder."""
    card = folder / "card.yaml"
    card.write_text(yaml.safe_dump({"name": "small", "inputs": INPUTS}))
    taggers = {name: str(folder / f"{name}.safetensors") for name in ("nominal", "adversarial")}
    for seed, path in enumerate(taggers.values()):
        make_tagger(str(card), seed).save(Path(path))
    return {"features": "card.yaml"}, taggers
