"""All figures of a file, and the report of them."""

import base64
import csv
import dataclasses
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import hist
import pytest
from PIL import Image

from common.errors import AdvtagError
from common.histograms import Dataset, HistogramFile
from plots import jobs, report
from plots.report import make_report
from plots.roc import auc_table, roc
from plots.run import attack_names, file_name, make_plots, training_figures
from plots.shapes import scaled
from plots.statistics import statistics

NAMES = ("Jet_pt", "Jet_nSelectedTracks", "trackSip2dSig_0", "vertexMass", "trackSip2dSig_9")
TRAINING = {"auc_vs_epoch.png", "susceptibility.png", "loss_vs_epoch.png"}
TRAINING |= {f"auc_vs_epoch_{name}.png" for name in ("BvsC", "CvsL", "CvsB")}
FIGURES = {f"{name}.png" for name in (*NAMES, "BvsL", "BvsC", "CvsL", "CvsB", "roc")}


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


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
    assert files_in(folder) == expected | TRAINING | {"auc.json", "statistics.csv"}
    assert {path.relative_to(folder).as_posix() for path in paths} == files_in(folder)
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            assert image.size[0] >= 900
            assert len(image.convert("RGB").getcolors(1 << 20)) > 5


def test_one_worker_writes_the_same(plotted, toy, histories, tmp_path: Path) -> None:
    make_plots(toy, histories, tmp_path, regions=["ttbar"], workers=1, progress=False)
    assert files_in(tmp_path) == {name for name in files_in(plotted[0]) if not name.startswith("dijet")}
    for name in ("ttbar/Jet_pt.png", *TRAINING):
        assert (tmp_path / name).read_bytes() == (plotted[0] / name).read_bytes()


def test_only_trainings(histories, tmp_path: Path, capsys, monkeypatch) -> None:
    scan = {"attack": "fgsm", "points": [{"inputs": 5, "auc": histories["nominal"][0]["auc"]}]}
    paths = make_plots(None, histories, tmp_path, scan=scan, workers=1, progress=False)
    assert {path.name for path in paths} == files_in(tmp_path) == TRAINING | {"scan.png"}
    assert "no histograms: only the figures of trainings" in capsys.readouterr().err
    page = Elements(make_report(None, tmp_path, title="t").read_text())
    pictures = [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in page.all("img")]
    assert sorted(pictures) == sorted(path.read_bytes() for path in tmp_path.glob("*.png"))
    assert [section["id"] for section in page.all("section")] == ["s0"]
    monkeypatch.setattr(report, "EMBED_UP_TO", 1000)
    page = Elements(make_report(None, tmp_path, title="t").read_text())
    assert {image["src"] for image in page.all("img")} == TRAINING | {"scan.png"}


def test_trainings_without_attacks(histories, tmp_path: Path) -> None:
    epoch = histories["nominal"][0]
    raw = {"t": [{**epoch, "auc": {"raw": epoch["auc"]["raw"]}, "validation_loss": {"raw": 1.0}}], "untrained": []}
    make_plots(None, raw, tmp_path, workers=1, progress=False)
    assert files_in(tmp_path) == TRAINING - {"susceptibility.png"}


def test_an_attack_has_one_colour(toy, histories) -> None:
    jobs = training_figures(histories, None, Path(), attack_names(toy), "Simulation")
    (job,) = [job for job in jobs if job.path.name == "auc_vs_epoch.png"]
    top, _ = job.draw(job.what, **job.options).axes
    curves = roc(scaled(toy, "BvsL", "ttbar")).axes[0]
    in_roc = {line.get_label().split(":")[0]: line.get_color() for line in curves.lines}
    assert [line.get_color() for line in top.lines[:3]] == [in_roc[name] for name in ("raw", "fgsm", "noise")]


def test_table_of_aucs(plotted, toy) -> None:
    assert json.loads((plotted[0] / "auc.json").read_text()) == auc_table(toy, ["ttbar", "dijet"])


def test_empty_regions_are_skipped_with_a_note(build_toy, tmp_path: Path, capsys) -> None:
    file = small(build_toy, regions=("ttbar",))
    make_plots(file, {}, tmp_path, workers=1, progress=True)
    assert files_in(tmp_path) == {"ttbar/Jet_pt.png", "ttbar/BvsL.png", "ttbar/roc.png", "auc.json", "statistics.csv"}
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
    paths = make_plots(file, {}, tmp_path, only="^Jet|roc", regions=["dijet"], tables=False, workers=1, progress=False)
    assert files_in(tmp_path) == {"dijet/Jet_pt.png", "dijet/roc.png"}
    assert {path.relative_to(tmp_path).as_posix() for path in paths} == files_in(tmp_path)
    with pytest.raises(AdvtagError, match=r"no figure matches 'pt_'; there are Jet_pt|BvsL"):
        make_plots(file, {}, tmp_path, only="pt_", progress=False)
    with pytest.raises(AdvtagError, match=r"'\(' is no regular expression \(missing"):
        make_plots(file, {}, tmp_path, only="(", progress=False)


def test_table_of_statistics(plotted, toy) -> None:
    with (plotted[0] / "statistics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["region"] for row in rows} == {"ttbar", "dijet"}
    assert len(rows) == len(statistics(toy, ["ttbar", "dijet"]))


def test_report_says_what_is_visible(plotted, toy) -> None:
    text = make_report(toy, plotted[0], title="t").read_text()
    assert "<h2>Data against MC</h2>" in text
    rows = statistics(toy, ["ttbar"])
    mine = [r for r in rows if (r.tagger, r.attack, r.kind) == ("nominal", "pgd", "input") and r.verdict]
    assert f"{sum(r.verdict == 'visible' for r in mine)} of {len(mine)}" in text


def test_names_of_files() -> None:
    assert file_name("../x y/Ä$") == "_._x_y_Ä_"
    assert file_name("ttbar_2b-1.5") == "ttbar_2b-1.5"


class Elements(HTMLParser):
    """Elements of a page, and an error for tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


def test_report_has_every_figure_and_every_auc(plotted, toy) -> None:
    folder, _ = plotted
    text = make_report(toy, folder, title="Toy <report>").read_text()
    page = Elements(text)
    images = page.all("img")
    pictures = {base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in images}
    assert pictures == {path.read_bytes() for path in folder.rglob("*.png")}
    assert len(images) == 26
    assert all(image["alt"] and image["loading"] == "lazy" for image in images)
    for row in auc_table(toy, ["ttbar", "dijet"]):
        assert f"{row['auc']:.4f}" in text
    assert "<h1>Toy &lt;report&gt;</h1>" in text
    assert "Not drawn: empty." in text
    assert "&quot;seed&quot;: 7" in text
    targets = {link["href"] for link in page.all("a")}
    assert targets == {f"#{section['id']}" for section in page.all("section")}
    assert len(page.all("details")) == 4


def test_report_gives_the_loss_under_attack(plotted, toy) -> None:
    text = make_report(toy, plotted[0], title="t").read_text()
    rows = {(r["tagger"], r["attack"]): r["auc"] for r in auc_table(toy, ["ttbar"]) if r["discriminator"] == "BvsL"}
    raw, attacked = rows["nominal", "raw"], rows["nominal", "pgd"]
    assert f"<td>{attacked:.4f} <small>{attacked - raw:+.4f}</small></td>" in text
    assert f"<td>{raw:.4f}</td>" in text


def test_report_lists_the_datasets(plotted, toy) -> None:
    text = re.sub(r"<[^>]*>+", " ", make_report(toy, plotted[0], title="t").read_text())
    assert re.search(r"QCD\s+MC\s+4,000\s+3,000\s+3000\s+0.012\s+0.166\s", text)
    assert re.search(r"Run2018\s+data\s+4,000\s+3,000\s+3000\s+&ndash;\s+1\s", text)
    assert "luminosity of 41500 pb" in text


def test_large_reports_refer_to_the_pictures(plotted, toy, monkeypatch) -> None:
    monkeypatch.setattr(report, "EMBED_UP_TO", 1000)
    path = make_report(toy, plotted[0], title="t")
    sources = [unquote(image["src"]) for image in Elements(path.read_text()).all("img")]
    assert len(sources) == 26
    assert all((path.parent / source).is_file() for source in sources)
    assert path.stat().st_size < 50_000


def test_users_names_cannot_write_html(build_toy, tmp_path: Path) -> None:
    name = "<script>"
    file = small(build_toy, names=(name,), regions=("<b>&",))
    file = dataclasses.replace(file, provenance={"config": "<script>alert(1)</script>"})
    assert isinstance(file.datasets[name], Dataset)
    make_plots(file, {}, tmp_path, workers=1, progress=False)
    text = make_report(file, tmp_path, title='"<i>').read_text()
    assert "<td>&lt;script&gt;</td>" in text
    assert "&lt;b&gt;&amp;" in text
    assert {tag for tag, _ in Elements(text).seen}.isdisjoint({"script", "b", "i"})


def test_report_without_figures(toy, tmp_path: Path) -> None:
    for histograms in (toy, None):
        with pytest.raises(AdvtagError, match="no figures to report; draw them first"):
            make_report(histograms, tmp_path, title="t")
    assert files_in(tmp_path) == set()
