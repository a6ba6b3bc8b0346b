"""The report as a file: what is in it, and what is refused. In a browser: test_report_browser.py."""

import base64
import csv
import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from common.errors import AdvtagError
from common.histograms import RAW, HistogramFile
from common.tables import write_table
from plots import report
from plots.catalogue import About, Listed, write_catalogue
from plots.report import make_report
from plots.roc import auc_table
from plots.statistics import Row, read_statistics, statistics
from tests.plots.plots_folder import ODD, draw, make_folder, write_tables

VOID = {"img", "meta", "input", "option", "br"}


class Elements(HTMLParser):
    """Elements of a page, the texts of table cells, and an error for tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


@pytest.fixture(scope="module")
def small(build_toy) -> HistogramFile:
    file = build_toy(1000, inputs=("Jet_pt", "vertexMass"))
    datasets = {
        name: dataclasses.replace(d, cutflow={"ttbar": {"all": (1000.0, 900.0), "muons": (250.0, 220.5)}})
        for name, d in file.datasets.items()
    }
    provenance = {"config": {"seed": 7, "name": "tö"}, "versions": {"numpy": "2.4"}, "job": "a1", "missing": []}
    return dataclasses.replace(file, datasets=datasets, provenance=provenance)


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plots")
    make_folder(folder, small, ["ttbar", "dijet"])
    return folder


@pytest.fixture(scope="module")
def page(small, folder) -> Elements:
    return Elements(make_report(small, folder, title="toy").read_text())


def test_every_figure_is_inside_once(folder, page) -> None:
    images = page.all("img")
    pictures = [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in images]
    assert sorted(pictures) == sorted(path.read_bytes() for path in folder.rglob("*.png"))
    assert all(image["alt"] and (image["width"], image["height"]) == ("400", "300") for image in images)
    assert [figure["data-file"] for figure in page.all("figure")][:2] == ["ttbar/BvsL.png", "ttbar/BvsC.png"]
    assert page.seen.count(("noscript", {})) == len(images)


def test_nothing_comes_from_elsewhere(page) -> None:
    assert not {tag for tag, _ in page.seen} & {"link", "iframe", "object", "embed", "base"}
    assert page.all("script") == [{}]
    links = [link["href"] for link in page.all("a") if "href" in link]
    assert links
    assert not [link for link in links if ":" in link or link.startswith("/")]
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_shipped_files_fit_into_a_page() -> None:
    place = Path(report.__file__).parent
    assert "</script" not in (place / "report.js").read_text()
    assert "</style" not in (place / "report.css").read_text()


def test_large_reports_refer_to_the_pictures(small, folder, monkeypatch) -> None:
    monkeypatch.setattr(report, "EMBED_UP_TO", 1000)
    path = make_report(small, folder, title="t")
    sources = [unquote(image["src"]) for image in Elements(path.read_text()).all("img")]
    assert sorted(sources) == sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))


def test_a_pdf_beside_a_figure(tmp_path) -> None:
    draw(tmp_path, [Listed("a b.png", About("roc", "a")), Listed("c.png", About("roc", "c"))])
    (tmp_path / "a b.pdf").write_bytes(b"%PDF")
    page = Elements(make_report(None, tmp_path, title="t").read_text())
    assert [figure.get("data-pdf") for figure in page.all("figure")] == ["a%20b.pdf", None]
    assert [link["href"] for link in page.all("a") if link.get("href", "").endswith("pdf")] == ["a%20b.pdf"]


def test_table_of_aucs(small, page) -> None:
    areas = {(r["region"], r["discriminator"], r["tagger"], r["attack"]): r["auc"] for r in auc_table(small)}
    head = next(row for row in page.rows if row[:3] == ["region", "discriminator", "tagger"])
    assert head[3:] == ["raw", "noise", "fgsm", "pgd"]
    rows = [row for row in page.rows if tuple(row[:3]) in {key[:3] for key in areas} and len(row) == len(head)]
    assert len(rows) == 2 * 4 * 2
    for *key, raw, noise, fgsm, pgd in rows:
        assert raw == f"{areas[*key, RAW]:.4f}"
        for attack, text in (("noise", noise), ("fgsm", fgsm), ("pgd", pgd)):
            assert text == f"{areas[*key, attack]:.4f} {areas[*key, attack] - areas[*key, RAW]:+.4f}"


def test_summary(small, folder, page) -> None:
    rows = statistics(small, ["ttbar", "dijet"])
    lowest = min(
        (r for r in auc_table(small, ["ttbar"]) if (r["discriminator"], r["tagger"]) == ("BvsL", "nominal")),
        key=lambda r: r["auc"],
    )
    assert [row[4] for row in page.rows if row[:2] == ["ttbar", "nominal"] and len(row) == 5] == [lowest["attack"]]
    seen = [r.verdict for r in rows if (r.attack, r.tagger, r.kind) == ("pgd", "nominal", "input") and r.verdict]
    (summary,) = [row for row in page.rows if row[:2] == ["pgd", "nominal"] and len(row) == 5]
    assert summary[2].startswith(f"visible {seen.count('visible')} of {len(seen)}")
    raw = [r for r in rows if r.attack == RAW and r.kind == "input"]
    worst = min(raw, key=lambda r: (r.p, -r.chi2 / r.ndf))
    first = next(row for row in page.rows if row[0] == "input")
    assert first[1:3] == [worst.region, worst.variable]
    assert first[4] == f"{worst.chi2:.1f}/{worst.ndf}"
    text = (folder / "report.html").read_text()
    assert f"{sum(r.p < 0.05 for r in raw)} of {len(raw)} inputs have p &lt; 0.05" in text
    assert "<dt>regions without figures</dt><dd>empty</dd>" in text
    assert "<dd>2 datasets, 8,000 events, 2,000 selected jets</dd>" in text


def test_statistics_are_read_not_computed_again(small, tmp_path) -> None:
    make_folder(tmp_path, small, ["dijet"])
    path = tmp_path / "statistics.csv"
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        if (row["variable"], row["attack"]) == ("Jet_pt", "raw"):
            row["ks_p"] = "0.123456"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    page = Elements(make_report(small, tmp_path, title="t").read_text())
    assert "0.123" in [cell for row in page.rows if row[:2] == ["dijet", "Jet_pt"] for cell in row]


def test_correlations_are_among_the_statistics(small, folder, page, tmp_path) -> None:
    text = (folder / "report.html").read_text()
    assert "Correlations between inputs are not in these tables" in text
    assert "in correlations" not in [cell for row in page.rows for cell in row]
    make_folder(tmp_path, small, ["dijet"])
    rows = read_statistics(tmp_path / "statistics.csv")
    nothing = {"chi2": np.nan, "ndf": 0, "p": np.nan, "shape_chi2": 5.5, "shape_ndf": 3, "shape_p": np.nan}
    raw = dataclasses.replace(
        rows[0], variable="correlations", kind="correlations", tagger="", attack="raw", verdict="", **nothing
    )
    raw = dataclasses.replace(raw, largest_pull=4.25, largest_p=0.001, pair="a and b")
    moved = dataclasses.replace(raw, tagger="nominal", attack="pgd", verdict="visible", shift_power=0.9)
    moved = dataclasses.replace(moved, shift_chi2=1e9, pair="c and d")
    write_table(tmp_path / "statistics.csv", Row, [*rows, raw, moved])
    text = make_report(small, tmp_path, title="t").read_text()
    assert "Of 3 pairs of inputs in dijet, the correlation of a and b differs most: pull 4.2, p = 0.001 for" in text
    assert "Correlations between inputs are not" not in text
    page = Elements(text)
    (verdicts,) = [row for row in page.rows if row[:3] == ["dijet", "pgd", "nominal"]]
    assert verdicts[4] == "visible 1 of 1"
    assert verdicts[-1].startswith("c and d, ")
    (line,) = [row for row in page.rows if row[:3] == ["dijet", "correlations a and b", "correlations"]]
    assert line[4:8] == ["\N{EN DASH}", "\N{EN DASH}", "5.5/3", "\N{EN DASH}"]
    assert line[-1] == "visible 90%"


def test_statistics_come_back_from_their_table(small, folder) -> None:
    rows, back = statistics(small, ["ttbar", "dijet"]), read_statistics(folder / "statistics.csv")
    assert len(back) == len(rows)
    for row, other in zip(rows, back, strict=True):
        for value, read in zip(dataclasses.astuple(row), dataclasses.astuple(other), strict=True):
            assert type(read) is type(value)
            assert value == read if isinstance(value, str) else read == pytest.approx(value, rel=1e-5, nan_ok=True)


def test_datasets_and_cutflows(small, page) -> None:
    assert ["QCD", "MC", "4,000", "1,000", "3000", "0.012", "0.166"] in page.rows
    assert ["Run2018", "data", "4,000", "1,000", "3000", "\N{EN DASH}", "1"] in page.rows
    scale = small.datasets["QCD"].scale(small.luminosity)
    muons = ["ttbar", "QCD", "1", "muons", "250", "25.0", "25.0", "220.5", f"{220.5 * scale:.6g}"]
    assert muons in page.rows
    assert ["ttbar", "Run2018", "0", "all", "1,000", "100.0", "100.0", "900", "900"] in page.rows


def test_configuration_and_versions(folder, page, tmp_path) -> None:
    text = (folder / "report.html").read_text()
    assert "seed: 7\nname: tö" in text
    assert ["numpy", "2.4"] in page.rows
    assert ["job", "a1"] in page.rows
    assert "failed.json" not in text
    draw(tmp_path, [Listed("a.png", About("training", "a"))])
    assert "epochs: 3" in make_report(None, tmp_path, title="t", configuration={"epochs": 3}).read_text()


def test_events_that_are_missing_are_told(small, folder) -> None:
    lost = dataclasses.replace(small, provenance={"missing": [{"file": "a.root", "start": 0, "stop": 10}]})
    assert "Events are missing in 1 places" in make_report(lost, folder, title="t").read_text()


def test_figures_that_are_not_on_disk_are_told(small, tmp_path) -> None:
    figures = make_folder(tmp_path, small, ["ttbar"])
    (tmp_path / figures[0].file).unlink()
    page = make_report(small, tmp_path, title="t").read_text()
    assert f"1 figures of figures.json are not on disk: {figures[0].file}." in page
    assert len(Elements(page).all("figure")) == len(figures) - 1


def test_tables_that_are_missing_are_told(small, tmp_path) -> None:
    draw(tmp_path, [Listed("a.png", About("roc", "a"))])
    text = make_report(small, tmp_path, title="t").read_text()
    for name in ("auc.json", "statistics.csv"):
        assert f"No {name}: draw all figures" in text


def test_tables_of_the_catalogue(tmp_path) -> None:
    draw(tmp_path, [Listed("a.png", About("study", "a"))])
    (tmp_path / "sf.csv").write_text("tagger,region,sf\nnominal,emu,0.98\nadversarial,emu,\n")
    write_catalogue(tmp_path, [Listed("sf.csv", About("study", "Scale <factors>", attacks=("fgsm",)))])
    page = Elements(make_report(None, tmp_path, title="t").read_text())
    assert page.rows[-3:] == [["tagger", "region", "sf"], ["nominal", "emu", "0.98"], ["adversarial", "emu", ""]]
    rows = [row for row in page.all("tr") if "data-tagger" in row]
    assert [json.loads(row["data-tagger"]) for row in rows] == [["nominal"], ["adversarial"]]
    assert {row["data-attack"] for row in rows} == {'["fgsm"]'}
    assert [head["data-sort"] for head in page.all("th")] == ["text", "text", "number"]
    assert [cell["data-value"] for cell in page.all("td") if "data-value" in cell] == ["0.98"]


def test_users_names_cannot_write_html(build_toy, tmp_path) -> None:
    file = build_toy(300, inputs=("Jet_pt",), names=(ODD,), regions=(ODD,))
    file = dataclasses.replace(file, discriminators=("BvsL",), provenance={"config": {"name": ODD}, ODD: ODD})
    write_tables(tmp_path, file, [ODD])
    draw(tmp_path, [Listed("a.png", About(ODD, ODD, ODD, ODD, (ODD,), (ODD,)))])
    text = make_report(file, tmp_path, title=ODD).read_text()
    page = Elements(text)
    assert not {tag for tag, _ in page.seen} & {"b", "i"}
    assert page.all("script") == [{}]
    assert [json.loads(each["data-region"]) for each in page.all("figure")] == [[ODD]]
    assert [ODD, ODD] in page.rows
    assert [ODD, "BvsL", "nominal"] in [row[:3] for row in page.rows]
    assert re.search("<h1>50% &lt;b&gt;&quot;a", text)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: None, "no figures.json; draw the figures first with `advtag plot`"),
        (lambda folder: (folder / "figures.json").write_text("{"), "not a list of figures"),
        (lambda folder: write_catalogue(folder, [Listed("a.png", About("roc", "a"))]), "no figures to report"),
        (lambda folder: write_catalogue(folder, [Listed("../a.png", About("roc", "a"))]), "is not inside this folder"),
        (lambda folder: write_catalogue(folder, [Listed("/a.png", About("roc", "a"))]), "is not inside this folder"),
        (lambda folder: tables(folder, "a.png", "no picture"), r"a\.png: not a PNG picture"),
        (lambda folder: tables(folder, "auc.json", '[{"auc": 1}]'), r"auc\.json: not a table of AUCs"),
        (lambda folder: tables(folder, "statistics.csv", "a,b\n1,2\n"), r"statistics\.csv: not a table of statistics"),
        (lambda folder: tables(folder, "a.csv", "a\n1,2\n"), r"a\.csv: not a table with a heading for each column"),
        (lambda folder: tables(folder, "a.csv", ""), r"a\.csv: not a table with a heading for each column"),
    ],
)
def test_what_cannot_be_reported(tmp_path, write, message) -> None:
    write(tmp_path)
    with pytest.raises(AdvtagError, match=message) as error:
        make_report(None, tmp_path, title="t")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "report.html").exists()


def tables(folder: Path, name: str, text: str) -> None:
    """A folder in which one file is spoiled."""
    listed = [Listed("a.png", About("roc", "a"))]
    draw(folder, listed)
    (folder / name).write_text(text)
    if name == "a.csv":
        write_catalogue(folder, [Listed(name, About("study", "a"))])
