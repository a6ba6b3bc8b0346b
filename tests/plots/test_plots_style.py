"""Errors, labels, names, saving."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import chi2

from common.errors import AdvtagError
from plots.style import FLAVOURS, LINES, attack_colours, headline, luminosity_text, plain, poisson_errors, save


def test_poisson_errors_are_those_of_garwood() -> None:
    counts = np.array([0.0, 1.0, 2.0, 7.0, 100.0])
    tail = 0.15865525393145707
    low = np.where(counts > 0, chi2.ppf(tail, 2 * np.maximum(counts, 1)) / 2, 0.0)
    high = chi2.ppf(1 - tail, 2 * (counts + 1)) / 2
    for errors in (poisson_errors(counts), poisson_errors(counts, counts)):
        np.testing.assert_allclose(errors, [counts - low, high - counts], atol=1e-12)
    assert poisson_errors(counts)[1, 0] == pytest.approx(1.841, abs=1e-3)
    assert poisson_errors(counts)[0, 0] == 0


def test_weighted_data_get_scaled_errors() -> None:
    counts = np.array([4.0, 9.0, 0.0])
    errors = poisson_errors(2 * counts, 4 * counts)
    np.testing.assert_allclose(errors[:, :2], 2 * poisson_errors(counts)[:, :2])
    assert np.isfinite(errors).all()


@pytest.mark.parametrize("label", ["Preliminary", "CMS preliminary"])
def test_no_label_claims_an_approval(label: str) -> None:
    axes = Figure().subplots()
    with pytest.raises(AdvtagError, match="claims an approval"):
        headline(axes, axes, label)


def test_headline_has_label_and_luminosity() -> None:
    axes = Figure().subplots()
    headline(axes, axes, "Private work", 41500)
    assert axes.get_title("left") == "Private work"
    assert axes.get_title("right") == "41.5 fb$^{-1}$"
    assert luminosity_text(12.34) == "12.3 pb$^{-1}$"


def test_users_names_are_shown_literally() -> None:
    assert plain("a$b") == r"a\$b"
    assert not plain("_hidden").startswith("_")
    assert len(plain("x" * 100)) == 26


def test_attack_colours_do_not_depend_on_what_is_filled() -> None:
    colours = attack_colours(["noise", "raw", "fgsm"])
    assert colours == {"raw": "black", "noise": LINES[0], "fgsm": LINES[1]}
    assert not set(LINES) & set(FLAVOURS.values())


def test_save_writes_a_white_png_and_keeps_the_settings(tmp_path: Path) -> None:
    before = matplotlib.rcParams["font.size"]
    figure = Figure(figsize=(4, 3))
    figure.subplots().plot([0, 1], color="red")
    image = Image.open(save(figure, tmp_path / "new" / "x.png")).convert("RGB")
    assert image.size == (400, 300)
    assert image.getpixel((1, 1)) == (255, 255, 255)
    assert matplotlib.rcParams["font.size"] == before


def test_a_figure_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"earlier")
    figure = Figure()
    figure.subplots().set_title(r"$\nosuchcommand$")
    with pytest.raises(ValueError, match="nosuchcommand"):
        save(figure, tmp_path / "x.png")
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    assert (tmp_path / "x.png").read_bytes() == b"earlier"
