"""The driver: reproducibility, refusals, and what is left behind."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot

from common.errors import AdvtagError
from simulation import run
from simulation.block import Block
from simulation.detector.reconstruct import MAX_EVENTS, MAX_SEED, Content, event_offset
from simulation.generation.pythia import EventGenerator
from simulation.knobs import Generator
from simulation.processes import PROCESSES
from simulation.run import make_block, simulate
from simulation.variants import VARIANTS


def read(paths: list[Path]) -> Any:
    return ak.concatenate([uproot.open(path)["Events"].arrays() for path in paths])


def equal(first: Any, second: Any) -> bool:
    return first.fields == second.fields and all(
        first[name].to_list() == second[name].to_list() for name in first.fields
    )


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> Block:
    return make_block(tmp_path_factory.mktemp("block"), "ttbar", "data", 3, Content(), 0, 5)


def test_content_depends_neither_on_workers_nor_on_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "BLOCK_EVENTS", 30)
    one = simulate("ttbar", 80, tmp_path / "one", workers=1, progress=False)
    two = simulate("ttbar", 80, tmp_path / "two", workers=2, events_per_file=35, progress=False)
    assert [path.name for path in one] == ["ttbar_mc_1_000.root"]
    assert [path.name for path in two] == [f"ttbar_mc_1_00{number}.root" for number in range(3)]
    assert [uproot.open(path)["Events"].num_entries for path in two] == [35, 35, 10]
    assert equal(read(one), read(two))


def test_seed_makes_the_sample(tmp_path: Path) -> None:
    first, again = (read(simulate("ttbar", 10, tmp_path / name, seed=5, progress=False)) for name in ("a", "b"))
    other = read(simulate("ttbar", 10, tmp_path, seed=6, progress=False))
    assert equal(first, again)
    assert not {tuple(event) for event in first.Jet_pt.to_list()} & {tuple(event) for event in other.Jet_pt.to_list()}


def test_batches_and_blocks_have_random_numbers_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulation.generation.generate.BATCH_EVENTS", 10)
    first, second = (make_block(tmp_path, "ttbar", "mc", 1, Content(), start, 20) for start in (0, 1000))
    pileup = [*np.split(first.weights["Pileup_nPU"], 2), *np.split(second.weights["Pileup_nPU"], 2)]
    assert len({tuple(batch.tolist()) for batch in pileup}) == 4
    jets = [np.split(block.truth.columns["genPt"], np.cumsum(block.truth.counts)[:-1]) for block in (first, second)]
    events = {tuple(event.tolist()) for block in jets for event in block if len(event)}
    assert len(events) == np.count_nonzero(first.truth.counts) + np.count_nonzero(second.truth.counts)


def test_event_numbers_meet_only_where_the_generated_events_do() -> None:
    offsets: dict[int, set[str]] = {}
    for process, variant, seed in product(PROCESSES.values(), VARIANTS.values(), (0, 1, 77, MAX_SEED - 1)):
        sample = f"{process.name} {variant.generator.name} {seed}"
        offsets.setdefault(event_offset(process, variant, seed), set()).add(sample)
    assert all(len(samples) == 1 for samples in offsets.values())
    generators = {variant.generator.name for variant in VARIANTS.values()}
    assert len(offsets) == len(PROCESSES) * len(generators) * 4
    assert np.diff(sorted(offsets)).min() >= MAX_EVENTS
    assert max(offsets) + MAX_EVENTS < 2**53


def test_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: Block) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run, "_make_blocks", lambda *arguments: (block for _ in range(1)))
    monkeypatch.setattr("simulation.writer.truth_columns", full)
    with pytest.raises(AdvtagError, match=r"cannot write .*ttbar_data_3_000.root: No space left"):
        simulate("ttbar", 5, tmp_path, variant="data", seed=3)
    assert files_in(tmp_path) == []


def test_one_lepton_of_alternating_charge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulation.generation.generate.ONE_LEPTON_BATCH_EVENTS", 30)
    block = make_block(tmp_path, "ttbar-semilepton", "mc", 1, Content(), 0, 60)
    charges = []
    for half in (block.part(0, 30), block.part(30, 60)):
        leptons = (
            (half.collections["Muon"], "pfRelIso04_all"),
            (half.collections["Electron"], "pfRelIso03_all"),
        )
        hard = [
            columns.columns["charge"][(columns.columns["pt"] > 30) & (columns.columns[isolation] < 0.1)]
            for columns, isolation in leptons
        ]
        charges.append(set(np.concatenate(hard).tolist()))
    assert charges == [{1}, {-1}]
    # sigma x 2 x 0.325 x 0.676, as in both charges together
    assert block.cross_section == pytest.approx(520 * 0.44, rel=0.4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"process": "higgs"}, ["'higgs'", *PROCESSES]),
        ({"variant": "nominal"}, ["'nominal'", *VARIANTS]),
        ({"events": 0}, ["events is 0", "1"]),
        ({"workers": 0}, ["workers is 0", "1"]),
        ({"events_per_file": -1}, ["events_per_file is -1"]),
        ({"seed": -1}, ["seed is -1", "0"]),
        ({"seed": MAX_SEED}, [f"seed is {MAX_SEED}", str(MAX_SEED - 1)]),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, change: dict[str, Any], words: list[str]) -> None:
    arguments: dict[str, Any] = {"process": "ttbar", "events": 5, "folder": tmp_path / "new"} | change
    with pytest.raises(AdvtagError) as error:
        simulate(**arguments)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("module", ["pythia8mc", "fastjet"])
def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(AdvtagError, match=r"pip install advtag\[simulation\]"):
        simulate("ttbar", 5, tmp_path)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(
    "existing", ["ttbar_data_1_001.root", "ttbar_data_1_000.json", "truth/ttbar_data_1_001.parquet"]
)
def test_nothing_is_overwritten(tmp_path: Path, existing: str) -> None:
    path = tmp_path / existing
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(AdvtagError, match=existing):
        simulate("ttbar", 10, tmp_path, variant="data", events_per_file=5)
    assert files_in(tmp_path) == [existing]
    assert path.read_text() == "mine"


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: Block) -> None:
    path = tmp_path / "ttbar_data_3_000.root"

    def blocks(*arguments: Any) -> Iterator[Block]:
        path.write_text("mine")
        yield block

    monkeypatch.setattr(run, "_make_blocks", blocks)
    with pytest.raises(AdvtagError, match="exists"):
        simulate("ttbar", 5, tmp_path, variant="data", seed=3)
    assert path.read_text() == "mine"
    assert files_in(tmp_path) == [path.name]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failure_leaves_only_complete_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: Block, error: type[BaseException]
) -> None:
    def blocks(*arguments: Any) -> Iterator[Block]:
        yield block
        yield block
        raise error

    monkeypatch.setattr(run, "_make_blocks", blocks)
    with pytest.raises(error):
        simulate("ttbar", 16, tmp_path, variant="data", seed=3, events_per_file=8)
    complete = ["ttbar_data_3_000.json", "ttbar_data_3_000.root"]
    assert files_in(tmp_path) == [
        "truth/ttbar_data_3_000.json",
        "truth/ttbar_data_3_000.parquet",
        *complete,
    ]
    assert uproot.open(tmp_path / complete[1])["Events"].num_entries == 8


def test_a_file_that_cannot_be_opened_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: Block
) -> None:
    def full(path: Path, **options: Any) -> None:
        path.write_bytes(b"root")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run, "_make_blocks", lambda *arguments: (block for _ in range(1)))
    monkeypatch.setattr("simulation.writer.uproot.recreate", full)
    with pytest.raises(AdvtagError, match=r"cannot write .*ttbar_data_3_000.root: No space left"):
        simulate("ttbar", 5, tmp_path, variant="data", seed=3)
    assert files_in(tmp_path) == []


def test_a_rename_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: Block) -> None:
    """The first files have their names already when the disk is found full."""
    replace_file = Path.replace

    def full(path: Path, target: Path) -> Path:
        if target.suffix == ".root":
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace_file(path, target)

    monkeypatch.setattr(run, "_make_blocks", lambda *arguments: (block for _ in range(1)))
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(AdvtagError, match=r"cannot write .*ttbar_data_3_000.root: No space left"):
        simulate("ttbar", 5, tmp_path, variant="data", seed=3)
    assert files_in(tmp_path) == []


def test_events_that_fail_are_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pythia leaves them out of its batches."""
    generator = EventGenerator(PROCESSES["z-jets"], Generator(settings=("PartonLevel:all = off",)), 1)
    whole = generator._pythia.nextBatch

    class Failing:
        def nextBatch(self, events: int, mode: str) -> Any:  # noqa: N802
            return whole(events, mode)[: events - events // 3]

    monkeypatch.setattr(generator, "_pythia", Failing())
    assert len(generator.next_batch(30)) == 30

    class Broken:
        def nextBatch(self, events: int, mode: str) -> Any:  # noqa: N802
            return whole(events, mode)[:0]

    monkeypatch.setattr(generator, "_pythia", Broken())
    with pytest.raises(AdvtagError, match="z-jets: made 0 of 30 events"):
        generator.next_batch(30)


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AdvtagError, match=r"cannot make the folder .*file"):
        simulate("ttbar", 5, tmp_path / "file")


def _die(*arguments: Any) -> None:
    os._exit(1)


def test_dead_worker_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "make_block", _die)
    monkeypatch.setattr(run, "BLOCK_EVENTS", 5)
    with pytest.raises(AdvtagError, match="worker died"):
        simulate("ttbar", 10, tmp_path, workers=2)
    assert files_in(tmp_path) == []


def test_nothing_is_printed(tmp_path: Path) -> None:
    script = "import sys, pathlib; from simulation.run import simulate; simulate('ttbar', 2, pathlib.Path(sys.argv[1]))"
    root = Path(run.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=root, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert "ttbar_mc_1_000.root" in files_in(tmp_path)
