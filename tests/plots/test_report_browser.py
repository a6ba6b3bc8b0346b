"""The report in a real browser: Debian's Chromium without a window, from file:// URLs."""

import dataclasses
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from plots import report
from plots.catalogue import About, Listed, write_catalogue
from plots.report import make_report
from plots.statistics import read_statistics
from tests.plots.plots_folder import ATTACKS, ODD, TAGGERS, draw, make_folder, write_tables

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
REGIONS = ("ttbar", "dijet")
expect.set_options(timeout=15_000)  # milliseconds, on a busy machine
SHOWN = "all => all.filter(e => e.offsetParent !== null).map(e => e.dataset.file)"
LOADED = "all => all.filter(e => e.complete && e.naturalWidth === 400).length"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium here: make programs")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser) -> Iterator[Callable[..., Page]]:
    """Opens pages of which none may complain, and none may ask for anything but files."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def open_(path: Path, fragment: str = "", **options) -> Page:
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options}))
        page = contexts[-1].new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else wrong.append(r.url))
        page.goto(path.as_uri() + fragment)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def toy_file(build_toy):
    return build_toy(500, inputs=("Jet_pt", "Jet_nSelectedTracks", "trackSip2dSig_0", "vertexMass"))


def write_report(toy_file, folder: Path, limit: int) -> tuple[Path, list[Listed]]:
    figures = make_folder(folder, toy_file, REGIONS)
    (folder / "ttbar" / "BvsL.pdf").write_bytes(b"%PDF-1.4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "EMBED_UP_TO", limit)
        return make_report(toy_file, folder, title="toy"), figures


@pytest.fixture(scope="module")
def linked(toy_file, tmp_path_factory) -> tuple[Path, list[Listed]]:
    """A report with its pictures beside it, and its figures."""
    return write_report(toy_file, tmp_path_factory.mktemp("linked"), 0)


@pytest.fixture(scope="module")
def embedded(toy_file, tmp_path_factory) -> tuple[Path, list[Listed]]:
    """A report with its pictures inside, and its figures."""
    return write_report(toy_file, tmp_path_factory.mktemp("embedded"), 10**9)


@pytest.fixture(params=["linked", "embedded"])
def made(request) -> tuple[Path, list[Listed]]:
    """Both, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def one(linked) -> Path:
    return linked[0]


def shown(page: Page) -> list[str]:
    return page.eval_on_selector_all("figure", SHOWN)


def in_order(figures: list[Listed]) -> list[Listed]:
    """As the page shows them: by kind."""
    kinds = ["discriminators", "roc", "inputs", "training", "some_study"]
    return sorted(figures, key=lambda each: kinds.index(each.about.kind))


def column(page: Page, table: str, heading: str) -> list[str]:
    """Texts of the visible cells of a column."""
    return page.eval_on_selector(
        table,
        """(table, heading) => {
            const index = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === heading);
            return [...table.tBodies[0].rows].filter((r) => r.offsetParent).map((r) => r.cells[index].innerText);
        }""",
        heading,
    )


def fits(about: About, chosen: dict[str, str]) -> bool:
    """The same choice as in the page, in Python: what names nothing is of everything."""
    names = {"kind": [about.kind], "region": [about.region], "tagger": about.taggers, "attack": about.attacks}
    named = {key: [name for name in of if name] for key, of in names.items()}
    text = chosen.get("variable", "")
    places = [about.variable, f"{about.title} ({about.region})" if about.region else about.title]
    try:
        found = any(re.search(text, place, re.IGNORECASE) for place in places)
    except re.error:
        found = any(text.lower() in place.lower() for place in places)
    return found and all(not named[k] or v in named[k] for k, v in chosen.items() if k != "variable")


def choose(page: Page, chosen: dict[str, str]) -> None:
    for key, value in chosen.items():
        field = page.locator(f"#selection [name={key}]")
        field.fill(value) if key == "variable" else field.select_option(value)


@pytest.fixture(scope="module")
def rows(one) -> list:
    return read_statistics(one.parent / "statistics.csv")


def cells(page: Page, table: str, heading: str) -> list[str]:
    """Texts of a column, of the rows that are not hidden."""
    script = """(table, heading) => {
        const index = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === heading);
        return [...table.tBodies[0].rows].filter((row) => row.offsetParent).map((row) => row.cells[index].innerText);
    }"""
    return page.eval_on_selector(table, script, heading)


VARIABLES = "#statistics details table"


def test_every_figure_can_be_seen(open_page, made) -> None:
    path, figures = made
    page = open_page(path)
    assert shown(page) == [each.file for each in in_order(figures)]
    expect(page.locator("#count")).to_have_text(f"{len(figures)} of {len(figures)} figures")
    for figure in page.locator("figure").all():
        figure.scroll_into_view_if_needed()
        expect(figure.locator("img")).to_have_js_property("naturalWidth", 400)


def test_pictures_wait_until_they_are_near(open_page, made) -> None:
    path, figures = made
    page = open_page(path)
    page.wait_for_timeout(200)
    assert page.locator("figure img").count() < len(figures) / 2
    page.locator("figure").last.scroll_into_view_if_needed()
    expect(page.locator("figure").last.locator("img")).to_have_count(1)


CHOICES = [
    {"region": "dijet"},
    {"kind": "inputs", "region": "ttbar"},
    {"tagger": "adversarial", "kind": "roc"},
    {"attack": "noise"},
    {"variable": "^Jet_"},
    {"variable": "jet_PT"},
    {"variable": "of nominal"},
    {"variable": "("},
    {"region": "dijet", "attack": "pgd", "variable": "vs[LB]$", "tagger": "nominal"},
    {"variable": "nothing like this"},
]


def test_figures_are_chosen(open_page, linked) -> None:
    path, figures = linked
    page = open_page(path)
    for chosen in CHOICES:
        expected = [each.file for each in in_order(figures) if fits(each.about, chosen)]
        assert len(expected) < len(figures)
        choose(page, chosen)
        assert shown(page) == expected, chosen
        expect(page.locator("#count")).to_contain_text(f"{len(expected)} of {len(figures)} figures")
        kinds = {each.about.kind for each in figures if each.file in expected}
        expect(page.locator("#figures h3:visible")).to_have_count(len(kinds))
        page.reload()
        assert shown(page) == expected, page.url
        page.get_by_role("button", name="clear").click()
        expect(page.locator("#count")).to_have_text(f"{len(figures)} of {len(figures)} figures")
        expect(page).not_to_have_url(re.compile("#"))


def test_a_choice_applies_to_tables(open_page, one, rows) -> None:
    page = open_page(one)
    page.locator("#statistics details summary").click()
    choose(page, {"region": "dijet", "tagger": "nominal", "attack": "pgd", "variable": "Jet_"})
    assert set(cells(page, VARIABLES, "region")) == {"dijet"}
    assert cells(page, VARIABLES, "variable") == ["Jet_pt", "Jet_nSelectedTracks"]
    pgd = {r.variable: r for r in rows if (r.region, r.tagger, r.attack) == ("dijet", "nominal", "pgd")}
    expected = [f"{pgd[name].verdict} {pgd[name].shift_power:.0%}" for name in ("Jet_pt", "Jet_nSelectedTracks")]
    assert cells(page, VARIABLES, "pgd") == expected
    heads = page.locator(f"{VARIABLES} th:visible").all_inner_texts()
    assert "pgd" in heads
    assert not {"noise", "fgsm"} & set(heads)
    expect(page.locator("#auc tbody tr:visible")).to_have_count(0)
    expect(page.locator("#auc .filter")).to_contain_text("0 of 16 rows")
    choose(page, {"variable": "CvsL"})
    assert cells(page, "#auc table", "discriminator") == ["CvsL"]
    assert page.locator("#summary tbody tr:visible").count() == page.locator("#summary tbody tr").count()


def test_tables_are_filtered(open_page, one, rows) -> None:
    page = open_page(one)
    page.locator("#statistics details summary").click()
    box = page.locator("#statistics details").get_by_label("filter rows")
    total = page.locator(f"{VARIABLES} tbody tr").count()
    for typed, kept in (("vertexmass", "vertexMass"), (r"Jet_pt.*nominal", "Jet_pt"), ("(", None)):
        box.fill(typed)
        assert set(cells(page, VARIABLES, "variable")) == ({kept} if kept else set())
    box.fill("")
    assert len(cells(page, VARIABLES, "variable")) == total
    choose(page, {"region": "ttbar"})
    box.fill("adversarial")
    expected = {r.variable for r in rows if (r.region, r.tagger) == ("ttbar", "adversarial")}
    assert set(cells(page, VARIABLES, "variable")) == expected
    expect(page.locator("#statistics details .filter")).to_contain_text(f"{len(expected)} of {total} rows")


def test_tables_are_sorted(open_page, one, rows) -> None:
    page = open_page(one)
    page.locator("#statistics details summary").click()
    before = cells(page, VARIABLES, "χ²/ndf")
    head = page.locator(f"{VARIABLES} th", has_text=re.compile("^χ²/ndf$"))
    exact = {(r.region, r.variable, r.tagger): r.chi2 / r.ndf for r in rows if r.attack == "raw"}
    expect(head).not_to_have_attribute("aria-sort", re.compile("."))
    for direction, reverse in (("ascending", False), ("descending", True)):
        head.get_by_role("button").click()
        expect(head).to_have_attribute("aria-sort", direction)
        keys = zip(*(cells(page, VARIABLES, name) for name in ("region", "variable", "tagger")), strict=True)
        values = [exact.get(key, exact.get((*key[:2], ""))) for key in keys]
        assert len(set(values)) > 10
        assert values == sorted(values, reverse=reverse)
    head.get_by_role("button").press("Enter")
    assert cells(page, VARIABLES, "χ²/ndf") == before
    head = page.locator(f"{VARIABLES} th", has_text="variable")
    head.get_by_role("button").click()
    names = cells(page, VARIABLES, "variable")
    assert names == sorted(names, key=str.lower)
    assert page.locator(f"{VARIABLES} th[aria-sort]").count() == 1


def test_numbers_are_sorted_as_numbers_and_gaps_come_last(open_page, tmp_path) -> None:
    draw(tmp_path, [Listed("a.png", About("study", "a"))])
    (tmp_path / "t.csv").write_text("name,n\ntrack_10,9\ntrack_9,10\ntrack_1,\ntrack_2,-1e3\ntrack_3,nan\n")
    draw_list = [Listed("t.csv", About("study", "t"))]
    write_catalogue(tmp_path, draw_list)
    page = open_page(make_report(None, tmp_path, title="t"))
    for heading, click, expected in (
        ("n", 1, ["-1e3", "9", "10", "", "nan"]),
        ("n", 2, ["10", "9", "-1e3", "", "nan"]),
    ):
        page.reload()
        for _ in range(click):
            page.locator("#tables th", has_text=re.compile(f"^{heading}$")).get_by_role("button").click()
        assert cells(page, "#tables table", heading) == expected
    page.locator("#tables th", has_text="name").get_by_role("button").click()
    assert cells(page, "#tables table", "name") == ["track_1", "track_2", "track_3", "track_9", "track_10"]


def test_a_figure_is_enlarged(open_page, made) -> None:
    path, _ = made
    page = open_page(path)
    choose(page, {"kind": "discriminators", "region": "ttbar"})
    files = shown(page)
    dialog, title = page.locator("#large"), page.locator("#large-title")
    expect(dialog).to_be_hidden()
    page.locator("figure:visible .frame").first.click()
    expect(title).to_have_text("BvsL (ttbar)")
    expect(page.locator("#large-place")).to_have_text(f"1 of {len(files)}")
    expect(page.locator("#large-image img")).to_have_js_property("naturalWidth", 400)
    expect(page.get_by_role("button", name="previous")).to_be_disabled()
    expect(page.locator("#large-pdf")).to_have_attribute("href", "ttbar/BvsL.pdf")
    page.keyboard.press("ArrowLeft")
    expect(title).to_have_text("BvsL (ttbar)")
    for file in files[1:]:
        page.keyboard.press("ArrowRight")
        expect(title).to_have_text(f"{Path(file).stem} (ttbar)")
    expect(page.get_by_role("button", name="next")).to_be_disabled()
    expect(page.locator("#large-pdf")).to_be_hidden()
    assert page.locator("#large-png").get_attribute("href").endswith(files[-1])
    page.get_by_role("button", name="previous").click()
    expect(title).to_have_text(f"{Path(files[-2]).stem} (ttbar)")
    address = page.url
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page).not_to_have_url(re.compile("figure="))  # set by the event that follows the closing
    assert page.evaluate("document.activeElement.closest('figure').dataset.file") == files[-2]
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    page.get_by_role("button", name="close").click()
    expect(dialog).to_be_hidden()
    other = open_page(path, "#" + address.split("#", 1)[1])
    expect(other.locator("#large-title")).to_have_text(f"{Path(files[-2]).stem} (ttbar)")
    assert shown(other) == files
    other.mouse.click(5, 400)
    expect(other.locator("#large")).to_be_hidden()


def test_links_lead_to_figures_and_sections(open_page, one) -> None:
    page = open_page(one)
    choose(page, {"region": "dijet"})
    page.locator("nav a", has_text="Data against MC").click()
    expect(page.locator("#statistics h2")).to_be_in_viewport()
    bar = page.locator(".bar").bounding_box()
    assert page.locator("#statistics h2").bounding_box()["y"] >= bar["y"] + bar["height"]
    assert page.locator("#selection [name=region]").input_value() == "dijet"
    expect(page).to_have_url(re.compile("#region=dijet&section=statistics$"))
    page.locator("#summary td a", has_text="vertexMass").first.click()
    expect(page.locator("#large-title")).to_contain_text("vertexMass")
    page.keyboard.press("Escape")
    expect(page).not_to_have_url(re.compile("figure="))  # else the event of the closing takes the next address back
    page.evaluate("location.hash = 'region=nowhere&variable=Jet_pt&figure=gone.png'")
    expect(page.locator("#count")).to_have_text("2 of 22 figures: variable Jet_pt")
    expect(page.locator("#large")).to_be_hidden()


def test_print(open_page, made) -> None:
    path, _ = made
    page = open_page(path, viewport={"width": 700, "height": 990})  # A4 at 96 dpi, without its margins
    choose(page, {"region": "dijet"})
    expected = shown(page)
    page.locator("#statistics details summary").click()
    data = page.pdf(format="A4")
    assert len(re.findall(rb"/Subtype */Image", data)) == len(expected)
    page.emulate_media(media="print")
    assert page.eval_on_selector_all("figure:not([hidden]) img", LOADED) == len(expected)
    for control in (".bar", ".filter", ":not(th) > button", "select", "input"):
        assert page.locator(f"{control}:visible").count() == 0
    boxes = "all => all.filter(e => e.offsetParent && e.scrollHeight > e.clientHeight + 1).length"
    assert page.eval_on_selector_all(".wide", boxes) == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 700


def test_print_button_waits_for_the_pictures(open_page, linked) -> None:
    path, figures = linked
    page = open_page(path)
    count = "document.querySelectorAll('figure img').length"
    page.evaluate(f"() => {{ window.print = () => {{ window.printed = {count}; }}; }}")
    page.get_by_role("button", name="print").click()
    page.wait_for_function("window.printed !== undefined")
    assert page.evaluate("window.printed") == len(figures)
    assert page.eval_on_selector_all("figure img", LOADED) == len(figures)


def test_without_scripts(open_page, made) -> None:
    path, figures = made
    page = open_page(path, java_script_enabled=False)
    expect(page.locator("#selection")).to_be_hidden()
    expect(page.locator("figure img:visible")).to_have_count(len(figures))
    for picture in (page.locator("figure img").first, page.locator("figure img").last):
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("naturalWidth", 400)
    assert page.locator("#auc tbody tr:visible").count() == 16
    page.locator("#statistics summary").click()
    assert page.locator(f"{VARIABLES} tbody tr:visible").count() == 2 * 8 * 2


def test_on_a_phone(open_page, one) -> None:
    page = open_page(one, viewport={"width": 400, "height": 800}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    expect(page.locator("#selection select").first).to_be_hidden()
    page.locator("#selection summary").tap()
    choose(page, {"kind": "roc", "region": "ttbar"})
    page.locator("figure:visible .frame").first.tap()
    expect(page.locator("#large-title")).to_have_text("ROC of nominal (ttbar)")
    box = page.locator("#large").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 400


@pytest.mark.parametrize("limit", [0, 10**9], ids=["linked", "embedded"])
def test_any_name(open_page, build_toy, tmp_path, monkeypatch, limit) -> None:
    monkeypatch.setattr(report, "EMBED_UP_TO", limit)
    file_name = ODD.replace("/", ":") + "é?.png"
    names = {"region": ODD, "variable": ODD, "tagger": ODD, "attack": ODD}
    folder = tmp_path / "a #1 50%"
    draw(folder, [Listed(f"{ODD.replace('/', ':')}/{file_name}", About(ODD, ODD, ODD, ODD, (ODD,), (ODD,)))])
    draw(folder, [Listed("plain.png", About("roc", "plain", "r", "v", ("t",), ("a",)))])
    page = open_page(make_report(None, folder, title=ODD))
    assert page.title() == " ".join(ODD.split())
    expect(page.locator("h1")).to_have_text(ODD)
    choose(page, {"kind": ODD, **{key: name for key, name in names.items() if key != "variable"}})
    page.locator("#selection [name=variable]").fill(ODD)
    assert len(shown(page)) == 1
    assert page.locator("script").count() == 1
    address = page.url.split("#", 1)[1]
    page.locator("figure:visible .frame").click()
    expect(page.locator("#large-image img")).to_have_js_property("naturalWidth", 400)
    other = open_page(folder / "report.html", "#" + address)
    assert {key: other.locator(f"#selection [name={key}]").input_value() for key in names} == names
    png = page.locator("#large-png").get_attribute("href")
    page.goto(png)
    assert page.locator("img").evaluate("image => image.naturalWidth") == 400


def toy(build_toy, **changes):
    file = build_toy(300, inputs=("Jet_pt",), **changes)
    return dataclasses.replace(file, discriminators=("BvsL",))


def test_simulation_alone(open_page, build_toy, tmp_path) -> None:
    file = toy(build_toy, data=False)
    make_folder(tmp_path, file, REGIONS)
    page = open_page(make_report(file, tmp_path, title="t"))
    expect(page.locator("#summary dl")).to_contain_text("none; verdicts are for the data expected")
    page.locator("#statistics details summary").click()
    assert set(cells(page, VARIABLES, "χ²/ndf")) == {"\N{EN DASH}"}
    assert "visible" in " ".join(cells(page, VARIABLES, "fgsm"))


def test_without_attacks(open_page, build_toy, tmp_path, clear) -> None:
    file = toy(build_toy)
    for h in file.histograms.values():
        for attack in ATTACKS:
            clear(h, "attack", attack)
    write_tables(tmp_path, file, list(REGIONS))
    draw(tmp_path, [Listed("a.png", About("inputs", "Jet_pt", "ttbar", "Jet_pt", TAGGERS))])
    page = open_page(make_report(file, tmp_path, title="t"))
    assert page.locator("#selection [name=attack] option").all_inner_texts() == ["all"]
    assert page.locator("#auc th").all_inner_texts() == ["region", "discriminator", "tagger", "raw"]
    expect(page.locator("#statistics")).not_to_contain_text("Which attacks")


def test_trainings_alone(open_page, tmp_path) -> None:
    draw(tmp_path, [Listed("loss_vs_epoch.png", About("training", "loss against epoch", taggers=("t",)))])
    page = open_page(make_report(None, tmp_path, title="t"))
    assert page.locator("nav a").all_inner_texts() == ["Summary", "Figures"]
    assert shown(page) == ["loss_vs_epoch.png"]
