"""Files of generated events: what they keep, when they are used again, and what is refused."""

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot

from common.errors import AdvtagError
from simulation import run
from simulation.generation import files
from simulation.generation.events import GeneratedEvents
from simulation.generation.files import block_path, generated_block, read, write
from simulation.generation.generate import generate, slim
from simulation.generation.pythia import EventGenerator, block_seed
from simulation.knobs import Generator
from simulation.processes import PROCESSES
from simulation.run import simulate

TTBAR, NOMINAL = PROCESSES["ttbar"], Generator()
COLLECTIONS = ("jets", "particles", "hadrons", "leptons")
N_EVENTS = 30


def columns(events: GeneratedEvents) -> dict[str, np.ndarray]:
    found = {"weight": events.weight, "n_charged": events.n_charged}
    for name in COLLECTIONS:
        collection = getattr(events, name)
        found |= {f"{name}.{column.name}": getattr(collection, column.name) for column in fields(collection)}
    return found


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def events() -> GeneratedEvents:
    return generate(TTBAR, NOMINAL, 3, 0, N_EVENTS)


@pytest.fixture
def block(tmp_path: Path, events: GeneratedEvents, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of these events, made as in a run."""
    monkeypatch.setattr(files, "generate", lambda *arguments: events)
    generated_block(tmp_path, TTBAR, NOMINAL, 3, 0, N_EVENTS)
    monkeypatch.undo()
    return block_path(tmp_path, TTBAR, NOMINAL, 3, 0, N_EVENTS)


@pytest.fixture
def no_pythia(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("events were generated once more")

    monkeypatch.setattr(files, "generate", refuse)


def test_files_keep_events_to_sixteen_bits(tmp_path: Path, events: GeneratedEvents) -> None:
    write(tmp_path / "a.parquet", events, {"events": N_EVENTS})
    before, after = columns(events), columns(read(tmp_path / "a.parquet", {"events": N_EVENTS}))
    assert after.keys() == before.keys()
    for name, values in before.items():
        if values.dtype.kind == "f" and name != "weight":
            assert np.all(np.abs(after[name] - values) <= 2.0**-16 * np.abs(values)), name
            assert after[name].dtype == float, name
        else:  # event numbers, indices, PDG numbers and counters are exact
            assert np.array_equal(after[name], values), name
    assert events.cross_section > 0
    again = read(tmp_path / "a.parquet", {"events": N_EVENTS})
    assert (again.cross_section, again.cross_section_error) == (events.cross_section, events.cross_section_error)


def test_indices_point_into_the_same_event(block: Path, tmp_path: Path) -> None:
    found = generated_block(tmp_path, TTBAR, NOMINAL, 3, 0, N_EVENTS)
    for collection, name, target in (
        (found.particles, "jet", found.jets),
        (found.particles, "hadron", found.hadrons),
        (found.hadrons, "jet", found.jets),
    ):
        index = getattr(collection, name)
        inside = index >= 0
        assert inside.any()
        assert not inside.all()
        assert index.min() == -1
        assert np.array_equal(target.event[index[inside]], collection.event[inside])


def test_events_without_objects_keep_their_places(tmp_path: Path, events: GeneratedEvents) -> None:
    """Only every third event has jets; with the others go the indices to them."""
    keep = events.jets.event % 3 == 0
    jets = type(events.jets)(**{c.name: getattr(events.jets, c.name)[keep] for c in fields(events.jets)})
    no_jet = {name: np.full(len(getattr(events, name).event), -1) for name in ("particles", "hadrons")}
    sparse = replace(
        events,
        jets=jets,
        particles=replace(events.particles, jet=no_jet["particles"]),
        hadrons=replace(events.hadrons, jet=no_jet["hadrons"]),
    )
    write(tmp_path / "a.parquet", sparse, {"events": len(sparse)})
    found = read(tmp_path / "a.parquet", {"events": len(sparse)})
    assert set(found.jets.event % 3) == {0}
    assert np.array_equal(found.jets.event, jets.event)
    assert np.all(found.particles.jet == -1)
    assert len(found) == N_EVENTS


def test_batches_are_laid_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event numbers and indices of later batches go on where those of the first end."""
    monkeypatch.setattr("simulation.generation.generate.BATCH_EVENTS", 4)
    whole = generate(TTBAR, NOMINAL, 3, 0, 10)
    pythia = EventGenerator(TTBAR, NOMINAL, block_seed(TTBAR, NOMINAL, 3, 0))
    batches = [slim(pythia.next_batch(events)) for events in (4, 4, 2)]
    offsets = {"event": (0, 4, 8)}
    for index, target in (("jet", "jets"), ("hadron", "hadrons")):
        offsets[index] = tuple(np.cumsum([0, *(len(getattr(batch, target).event) for batch in batches[:-1])]))
    parts = [columns(batch) for batch in batches]
    for name, values in columns(whole).items():
        starts = offsets.get(name.rpartition(".")[2], (0, 0, 0))
        expected = [
            np.where(part[name] >= 0, part[name] + start, -1) if any(starts) else part[name]
            for part, start in zip(parts, starts, strict=True)
        ]
        assert np.array_equal(values, np.concatenate(expected)), name
    assert len(whole) == 10


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        generated_block(tmp_path / folder, TTBAR, NOMINAL, 4, 10, 5)
    first, second = (block_path(tmp_path / folder, TTBAR, NOMINAL, 4, 10, 5) for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"pythia": "0.1"}, "pythia"),
        ({"pythia_commands": ["Beams:eCM = 7000."]}, "pythia_commands"),
        ({"format": 0, "lifetime_scale": {"511": 1.5}}, "format, lifetime_scale"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_another_recipe_is_refused(
    block: Path, tmp_path: Path, events: GeneratedEvents, change: dict[str, Any], named: str
) -> None:
    recipe = files.json.loads(pq.read_schema(block).metadata[b"advtag"])
    write(block, events, {**recipe, **change})
    with pytest.raises(AdvtagError) as error:
        generated_block(tmp_path, TTBAR, NOMINAL, 3, 0, N_EVENTS)
    message = str(error.value)
    assert message.startswith(f"{block}: generated with another {named}; delete the folder {block.parent}, or")
    assert "\n" not in message


@pytest.mark.parametrize(
    "changed",
    [replace(NOMINAL, settings=("Tune:pp = 21",)), replace(NOMINAL, lifetime_scale={511: 1.5})],
    ids=["settings", "lifetimes"],
)
def test_a_generator_that_was_edited_is_noticed(
    block: Path, tmp_path: Path, no_pythia: None, changed: Generator
) -> None:
    with pytest.raises(AdvtagError, match="generated with another"):
        generated_block(tmp_path, TTBAR, changed, 3, 0, N_EVENTS)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def overwrite(path: Path) -> None:
    path.write_text("not a Parquet file")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)


def lose_a_column(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns(["Hadron_decay_x"]), path)


def lose_an_event(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.slice(0, table.num_rows - 1), path)


def corrupt(path: Path) -> None:
    """Zeros in the middle, where the data are."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, overwrite, empty, foreign, lose_a_column, lose_an_event, corrupt])
def test_a_damaged_file_is_named(block: Path, tmp_path: Path, no_pythia: None, damage: Callable[[Path], None]) -> None:
    damage(block)
    with pytest.raises(AdvtagError) as error:
        generated_block(tmp_path, TTBAR, NOMINAL, 3, 0, N_EVENTS)
    assert str(error.value).startswith(f"{block}: not a file of generated events (")
    assert str(error.value).endswith("delete it and run again")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failure_while_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: GeneratedEvents, error: BaseException
) -> None:
    def fail(table: Any, path: Path, **options: Any) -> None:
        path.write_bytes(b"the beginning")
        raise error

    monkeypatch.setattr(files, "generate", lambda *arguments: events)
    monkeypatch.setattr(files.pq, "write_table", fail)
    expected = AdvtagError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        simulate("ttbar", N_EVENTS, tmp_path, seed=3, progress=False)
    assert files_in(tmp_path) == []


def test_detector_variants_share_generated_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (nominal,) = simulate("ttbar", 20, tmp_path, progress=False)
    path = block_path(tmp_path / "generator", TTBAR, NOMINAL, 1, 0, 20)
    before = path.stat()

    def refuse(*arguments: Any) -> None:
        raise AssertionError("events were generated once more")

    monkeypatch.setattr(files, "generate", refuse)
    others = [
        simulate("ttbar", 20, tmp_path, variant=name, progress=False)[0]
        for name in ("detector", "jet-energy-scale", "fakes")
    ]
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert len(list((tmp_path / "generator").rglob("*.*"))) == 1
    trees = [uproot.open(other)["Events"].arrays() for other in (nominal, *others)]
    gen_pt = [{(event, pt) for event, jets in enumerate(tree.Jet_genPt.to_list()) for pt in jets} for tree in trees]
    for tree, found in zip(trees[1:], gen_pt[1:], strict=True):
        assert tree.event.to_list() == trees[0].event.to_list()
        assert len(found & gen_pt[0]) >= 0.85 * len(gen_pt[0])  # but for jets about the threshold of 20 GeV
    assert gen_pt[3] == gen_pt[0]  # fake tracks leave all jets where they are


def test_generator_variants_have_events_of_their_own(tmp_path: Path) -> None:
    first, second, data = (
        uproot.open(simulate("ttbar", 5, tmp_path, variant=name, progress=False)[0])["Events"].arrays()
        for name in ("mc", "b-fragmentation", "data")
    )
    assert {path.name for path in (tmp_path / "generator").iterdir()} == {
        "ttbar_nominal_1",
        "ttbar_b-fragmentation_1",
        "ttbar_data_1",
    }
    numbers = [set(tree.event.to_list()) for tree in (first, second, data)]
    assert len(set.union(*numbers)) == 15
    assert first.Jet_genPt.to_list() != second.Jet_genPt.to_list()


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "BLOCK_EVENTS", 5)
    made: list[int] = []

    def interrupted(*arguments: Any) -> GeneratedEvents:
        if arguments[3] == 10:
            raise KeyboardInterrupt
        return generate(*arguments)

    def counted(*arguments: Any) -> GeneratedEvents:
        made.append(arguments[3])
        return generate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(files, "generate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            simulate("ttbar", 15, tmp_path / "a", progress=False)
    blocks = [f"generator/ttbar_nominal_1/{start:08d}_5.parquet" for start in (0, 5)]
    assert files_in(tmp_path / "a") == blocks

    monkeypatch.setattr(files, "generate", counted)
    (resumed,) = simulate("ttbar", 15, tmp_path / "a", progress=False)
    assert made == [10]
    (whole,) = simulate("ttbar", 15, tmp_path / "b", progress=False)
    first, second = (uproot.open(path)["Events"].arrays() for path in (resumed, whole))
    assert all(first[name].to_list() == second[name].to_list() for name in second.fields)


def test_ctrl_c_waits_for_the_end_of_the_file(tmp_path: Path) -> None:
    """A worker dies of Ctrl-C on the spot (`run._die_on_interrupt`), but not in the middle of a file."""
    script = """
import os, pathlib, signal, sys
from simulation.generation import files
from simulation.knobs import Generator
from simulation.processes import PROCESSES

signal.signal(signal.SIGINT, signal.SIG_DFL)
write_table = files.pq.write_table
def interrupted(table, path, **options):
    os.kill(os.getpid(), signal.SIGINT)
    write_table(table, path, **options)
files.pq.write_table = interrupted
files.generated_block(pathlib.Path(sys.argv[1]), PROCESSES["ttbar"], Generator(), 1, 0, 2)
print("went on")
"""
    root = Path(run.__file__).parents[1]
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "")
    assert [path.name for path in tmp_path.rglob("*.*")] == ["00000000_2.parquet"]
    assert pq.read_table(next(tmp_path.rglob("*.parquet"))).num_rows == 2
