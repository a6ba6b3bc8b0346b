"""A handful of figures, pixel by pixel, against images that were looked at.

New ones: `pytest tests/plots/test_plots_images.py --mpl-generate-path=tests/plots/baseline`, then look at them.
"""

import numpy as np
import pytest

from plots.cutflow import cutflow
from plots.datamc import data_mc
from plots.flavours import flavour_shapes
from plots.roc import roc
from plots.shapes import NOMINAL, jets_in, scaled
from plots.stack import Drawing
from plots.style import cms_style
from plots.training import auc_vs_epoch

IMAGE = {"savefig_kwargs": {"dpi": 50}, "tolerance": 3, "style": "default"}


@pytest.fixture(autouse=True)
def style():
    """Ticks and fonts are settled when a figure is saved, which here is not done by `plots.style.save`."""
    with cms_style():
        yield


@pytest.mark.mpl_image_compare(**IMAGE)
def test_input(toy):
    return data_mc(scaled(toy, "trackSip2dSig_0", "ttbar"), luminosity=toy.luminosity, region="ttbar")


@pytest.mark.mpl_image_compare(**IMAGE)
def test_absent_entries_by_process(toy):
    shapes = scaled(toy, "vertexMass", "dijet", by_process=True)
    jets = jets_in(toy, "dijet", by_process=True)
    for key in ("value", "variance"):
        jets.view(flow=True)[key] *= 1.5
    drawing = Drawing(area=True, rebin=2, log=True)
    return data_mc(shapes, luminosity=10.0, label="Private work", region="dijet", drawing=drawing, jets={NOMINAL: jets})


@pytest.mark.mpl_image_compare(**IMAGE)
def test_discriminator(toy):
    shapes = scaled(toy, "BvsL", "ttbar")
    return data_mc(shapes, luminosity=toy.luminosity, region="ttbar", drawing=Drawing(discriminator=True))


@pytest.mark.mpl_image_compare(**IMAGE)
def test_shapes_by_flavour(toy):
    return flavour_shapes(scaled(toy, "trackSip2dSig_0", "ttbar"), region="ttbar")


@pytest.mark.mpl_image_compare(**IMAGE)
def test_roc(toy):
    return roc(scaled(toy, "CvsL", "ttbar"), region="ttbar")


@pytest.mark.mpl_image_compare(**IMAGE)
def test_auc_against_epoch(histories):
    return auc_vs_epoch(histories)


@pytest.mark.mpl_image_compare(**IMAGE)
def test_cutflow():
    cuts = ("all", "trigger", "two leptons", "two jets")
    flows = {
        name: (name == "data", {cut: (1.0, scale * 10.0 ** (4 - i)) for i, cut in enumerate(cuts)})
        for name, scale in (("ttbar", 0.6), ("z-jets", 0.5), ("data", 1.05))
    }
    assert np.isclose(flows["data"][1]["two jets"][1], 10.5)
    return cutflow(flows, luminosity=41500.0, region="emu")
