"""Run a processor over a fileset with coffea's Runner, and balance the books."""

import re
from typing import Any

from coffea import processor
from coffea.nanoevents import BaseSchema

from common.errors import AdvtagError
from configs.schema import Run
from processors.executors import executor
from processors.fileset import File


def run_processor(
    job: processor.ProcessorABC, files: list[File], read: list[str], run: Run, *, progress: bool
) -> dict[str, Any]:
    """Run the job over all chunks.

    Args:
        job: a processor of this package, whose output has `counts`
        files: checked files
        read: the branches that NanoEvents may build
        run: executor, workers, chunk size
        progress: show a progress bar

    Returns:
        the accumulated output

    Raises:
        AdvtagError: a chunk failed, or the events processed are not the events expected
    """
    chunks = [chunk for file in files for chunk in file.chunks(run.chunksize)]
    with executor(run, progress=progress) as chosen:
        # BaseSchema: branches by their names in the file. NanoAODSchema's vectors refuse collections of which only
        # some branches are built, and building all of them costs more than the job (docs/decisions.md).
        runner = processor.Runner(executor=chosen, schema=BaseSchema, chunksize=run.chunksize, skipbadfiles=False)
        try:
            done = runner.run(chunks, job, iteritems_options={"filter_name": read})
        except Exception as error:
            raise _explain(error) from error
    output: dict[str, Any] = done["out"]
    balance(files, output["counts"])
    return output


def balance(files: list[File], counts: dict[str, dict[str, dict[str, float]]]) -> None:
    """Insist that every file's events were processed once.

    Raises:
        AdvtagError: they were not; names the first such file
    """
    for file in files:
        found = counts.get(file.dataset, {}).get(file.path, {}).get("events", 0)
        if found != file.events:
            raise AdvtagError(
                f"{file.path}: {file.events} events expected, {found:.0f} processed (dataset {file.dataset!r}); "
                "nothing was written. Run again."
            )


def _explain(error: BaseException) -> AdvtagError:
    """The AdvtagError among the causes, or one that says which chunk failed and why."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AdvtagError):
            return cause
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(error).split())
    # a worker process or a Dask worker sends the text of a cause, not the cause
    told = re.search(r"AdvtagError\((['\"])(.*)\1\)", text)
    if told:
        return AdvtagError(told[2])
    item = re.search(r"filename='([^']*)'.*?entrystart=(\d+), entrystop=(\d+)", text)
    where = f"{item[1]}, events {item[2]} to {item[3]}" if item else "a chunk"
    why = text.partition("The error was: ")[2] or f"{type(error).__name__}: {text}"
    return AdvtagError(f"{where}: processing failed, nothing was written: {why[:400]}")
