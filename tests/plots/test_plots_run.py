"""All figures of a file."""

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import hist
import pytest
from PIL import Image

from common.errors import AdvtagError
from common.histograms import HistogramFile
from plots import jobs
from plots.catalogue import About, read_catalogue
from plots.figures import Style, training_figures
from plots.jobs import file_name
from plots.report import make_report
from plots.roc import auc_table, roc
from plots.run import attack_names, make_plots
from plots.shapes import scaled
from plots.statistics import statistics

LACKING = ("mc", "plain", "data", "negative", "light")
TAGGERS, ATTACKS = ("nominal", "adversarial"), ("noise", "fgsm", "pgd")
NAMES = ("Jet_pt", "Jet_nSelectedTracks", "trackSip2dSig_0", "vertexMass", "trackSip2dSig_9")
SCORES = ("BvsL", "BvsC", "CvsL", "CvsB")
TRAINING = {f"training/{name}.png" for name in ("susceptibility", "loss_vs_epoch")}
TRAINING |= {f"training/auc_vs_epoch_{name}.png" for name in SCORES}
FIGURES = {f"{place}{name}.png" for place in ("", "flavours/") for name in (*NAMES, *SCORES)}
FIGURES |= {f"{place}{name}.png" for place in ("roc_", "by_process/") for name in SCORES}
FIGURES |= {"residual.png"}
TABLES = {"auc.json", "statistics.csv", "residual.csv"}


def files_in(folder: Path) -> set[str]:
    """All files; a figure and its PDF count once."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    drawn = {name.removesuffix(".png") for name in found if name.endswith(".png")}
    assert {name.removesuffix(".pdf") for name in found if name.endswith(".pdf")} == drawn
    return {name for name in found if not name.endswith(".pdf")}


@pytest.fixture(scope="module")
def plotted(toy, histories, tmp_path_factory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("two")
    return folder, make_plots(toy, histories, folder, regions=["ttbar", "dijet"], workers=2, progress=False)


def small(build_toy: Callable[..., HistogramFile], **changes: object) -> HistogramFile:
    """A file with few figures: one input, and BvsL."""
    file = build_toy(300, inputs=("Jet_pt",), **changes)
    return dataclasses.replace(file, discriminators=("BvsL",))


def test_every_figure_is_there_and_is_a_picture(plotted) -> None:
    folder, paths = plotted
    expected = {f"{region}/{name}" for region in ("ttbar", "dijet") for name in FIGURES}
    assert files_in(folder) == expected | TRAINING | TABLES | {"figures.json"}
    assert {path.relative_to(folder).as_posix() for path in paths} == files_in(folder)
    assert {each.file for each in read_catalogue(folder)} == expected | TRAINING | {"residual.csv"}
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            assert image.size[0] >= 900
            assert len(image.convert("RGB").getcolors(1 << 20)) > 5


def test_one_worker_writes_the_same(plotted, toy, histories, tmp_path: Path) -> None:
    make_plots(toy, histories, tmp_path, regions=["tt*"], only="pt$|vs_epoch|by_process/", workers=1, progress=False)
    written = files_in(tmp_path)
    assert {"ttbar/Jet_pt.png", "ttbar/flavours/Jet_pt.png", "ttbar/by_process/BvsL.png"} < written
    for name in written - TABLES - {"figures.json"}:
        for ending in (".png", ".pdf"):
            path = (tmp_path / name).with_suffix(ending)
            assert path.read_bytes() == (plotted[0] / name).with_suffix(ending).read_bytes()


def test_only_trainings(histories, tmp_path: Path, capsys) -> None:
    scan = {"attack": "fgsm", "points": [{"inputs": 5, "auc": histories["nominal"][0]["auc"]}]}
    paths = make_plots(None, histories, tmp_path, scan=scan, workers=1, progress=False)
    assert {path.relative_to(tmp_path).as_posix() for path in paths} == files_in(tmp_path)
    assert files_in(tmp_path) == TRAINING | {"training/scan.png", "figures.json"}
    assert "no histograms: only the figures of trainings" in capsys.readouterr().err


def test_trainings_without_attacks(histories, tmp_path: Path) -> None:
    epoch = histories["nominal"][0]
    raw = {"t": [{**epoch, "auc": {"raw": epoch["auc"]["raw"]}, "validation_loss": {"raw": 1.0}}], "untrained": []}
    make_plots(None, raw, tmp_path, workers=1, progress=False)
    assert files_in(tmp_path) == TRAINING - {"training/susceptibility.png"} | {"figures.json"}


def test_an_attack_has_one_colour(toy, histories) -> None:
    jobs = training_figures(histories, None, Path(), attack_names(toy), "Simulation")
    (job,) = [job for job in jobs if job.path.name == "auc_vs_epoch_BvsL.png"]
    top, _ = job.draw(job.what, **job.options).axes
    curves = roc(scaled(toy, "BvsL", "ttbar")).axes[0]
    in_roc = {line.get_label().split(":")[0]: line.get_color() for line in curves.lines}
    assert [line.get_color() for line in top.lines[:3]] == [in_roc[name] for name in ("raw", "fgsm", "noise")]


def test_table_of_aucs(plotted, toy) -> None:
    assert json.loads((plotted[0] / "auc.json").read_text()) == auc_table(toy, ["ttbar", "dijet"])


def test_empty_regions_are_skipped_with_a_note(build_toy, tmp_path: Path, capsys) -> None:
    file = small(build_toy, regions=("ttbar",))
    make_plots(file, {}, tmp_path, only="^roc", workers=1, progress=True)
    assert files_in(tmp_path) == {"ttbar/roc_BvsL.png", "figures.json"} | TABLES
    captured = capsys.readouterr()
    assert "region 'empty' holds no jets" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("region", "text"), [("empty", "region 'empty' holds no jets"), ("nope", "no region 'nope' .* ttbar, dijet")]
)
def test_regions_that_cannot_be_drawn(toy, tmp_path: Path, region: str, text: str) -> None:
    with pytest.raises(AdvtagError, match=text):
        make_plots(toy, {}, tmp_path, regions=[region], progress=False)
    assert files_in(tmp_path) == set()


def test_regions_that_would_share_a_folder(build_toy, tmp_path: Path) -> None:
    with pytest.raises(AdvtagError, match="'a b' and 'a/b' need the same folder"):
        make_plots(small(build_toy, regions=("a b", "a/b")), {}, tmp_path, progress=False)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_figure_leaves_no_half_written_file(toy, tmp_path: Path, monkeypatch, workers: int) -> None:
    monkeypatch.setattr(jobs, "WORTH", 1)
    source = toy.histograms["Jet_pt"]
    broken = hist.Hist(
        *list(source.axes)[:-1],
        hist.axis.Regular(40, 20, 220, name="Jet_pt", label=r"jet $\nosuch$"),
        storage=hist.storage.Weight(),
        data=source.view(flow=True),
    )
    file = dataclasses.replace(toy, histograms=toy.histograms | {"Jet_pt": broken}, discriminators=())
    with pytest.raises(AdvtagError, match=r"Jet_pt\.png: cannot be drawn .*nosuch.* feature card"):
        make_plots(file, {}, tmp_path, regions=["ttbar"], workers=workers, progress=False)
    left = list(tmp_path.rglob("*.*"))
    assert not [path for path in left if path.name == "Jet_pt.png" or "aside" in path.name]
    assert not (tmp_path / "auc.json").exists()


def test_only_some_figures(build_toy, tmp_path: Path) -> None:
    file = small(build_toy)
    paths = make_plots(file, {}, tmp_path, only="^Jet|roc", regions=["dij*"], tables=False, workers=1, progress=False)
    figures = {"dijet/Jet_pt.png", "dijet/flavours/Jet_pt.png", "dijet/roc_BvsL.png"}
    assert files_in(tmp_path) == figures | {"figures.json"}
    assert {path.relative_to(tmp_path).as_posix() for path in paths} == files_in(tmp_path)
    with pytest.raises(AdvtagError, match=r"no figure matches 'pt_'; there are Jet_pt|BvsL"):
        make_plots(file, {}, tmp_path, only="pt_", tables=False, progress=False)
    with pytest.raises(AdvtagError, match=r"'\(' is no regular expression \(missing"):
        make_plots(file, {}, tmp_path, only="(", progress=False)


def test_a_later_figure_joins_the_list(build_toy, tmp_path: Path) -> None:
    file, options = small(build_toy), {"regions": ["dijet"], "tables": False, "workers": 1, "progress": False}
    make_plots(file, {}, tmp_path, only="^Jet", **options)
    make_plots(file, {}, tmp_path, only="roc", **options)
    make_plots(file, {}, tmp_path, only="^Jet", style=Style(yscale="both", rebin=3), **options)
    listed = read_catalogue(tmp_path)
    names = ["Jet_pt", "flavours/Jet_pt", "roc_BvsL", "Jet_pt_log", "flavours/Jet_pt_log"]
    assert [each.file for each in listed] == [f"dijet/{name}.png" for name in names]
    assert listed[2].about == About("roc", "BvsL", "dijet", "BvsL", ("ghost", *TAGGERS), (*ATTACKS, "unused"))


def test_files_that_lack_something(build_toy, clear, tmp_path: Path) -> None:
    """MC only; no attacks; no simulation; negative weights; one flavour: sensible figures, and a report of them."""
    files = {name: small(build_toy, data=name != "mc", regions=("ttbar",)) for name in LACKING}
    for h in files["plain"].histograms.values():
        for attack in ATTACKS:
            clear(h, "attack", attack)
    for h in files["data"].histograms.values():
        for dataset in ("ttbar", "QCD"):
            clear(h, "dataset", dataset)
    for h in files["negative"].histograms.values():
        h.view(flow=True)["value"][h.axes["dataset"].index("QCD")] *= -1.2
    for h in files["light"].histograms.values():
        for flavour in ("b", "bb", "c"):
            clear(h, "flavour", flavour)
    for name, file in files.items():
        folder = tmp_path / name
        make_plots(file, {}, folder, workers=1, progress=False)
        drawn = {each for each in files_in(folder) if each.endswith(".png")}
        assert {"ttbar/Jet_pt.png", "ttbar/BvsL.png", "ttbar/roc_BvsL.png"} < drawn
        assert name not in ("plain", "data") or "ttbar/residual.png" not in drawn
        assert name in make_report(file, folder, title=name).read_text()


def test_every_variable_by_process(build_toy, tmp_path: Path) -> None:
    make_plots(small(build_toy), {}, tmp_path, only="by_process/", style=Style(by="process"), workers=1, progress=False)
    assert {name for name in files_in(tmp_path) if name.endswith(".png")} == {
        f"{region}/by_process/{name}.png" for region in ("ttbar", "dijet") for name in ("Jet_pt", "BvsL")
    }


@pytest.mark.parametrize("only", ["^resid", "dijet/res"])
def test_only_the_uncertainties_from_attacks(build_toy, tmp_path: Path, only: str) -> None:
    options = {"regions": ["dijet"], "tables": False, "workers": 1, "progress": False}
    make_plots(small(build_toy), {}, tmp_path, only=only, **options)
    assert files_in(tmp_path) == {"dijet/residual.png", "figures.json"}


def test_table_of_statistics(plotted, toy) -> None:
    with (plotted[0] / "statistics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["region"] for row in rows} == {"ttbar", "dijet"}
    assert len(rows) == len(statistics(toy, ["ttbar", "dijet"]))


def test_names_of_files() -> None:
    assert file_name("../x y/Ä$") == "_._x_y_Ä_"
    assert file_name("ttbar_2b-1.5") == "ttbar_2b-1.5"
