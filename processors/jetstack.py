"""The corrections of jet energies as coffea's jetmet_tools hold them, from text files or from correctionlib."""

import tempfile
import warnings
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from coffea.jetmet_tools import JECStack
from coffea.jetmet_tools.correctionlib_adapters import (
    CorrectionLibJEC,
    CorrectionLibJECStack,
    CorrectionLibJER,
    CorrectionLibJERSF,
    CorrectionLibJUNC,
)
from coffea.lookup_tools import extractor
from numpy.typing import NDArray

from common.errors import AdvtagError
from processors.evaluator import Evaluator

Floats = NDArray[np.float64]


@lru_cache(maxsize=16)
def jec_stack(
    name: str,
    evaluators: tuple[tuple[str, Evaluator], ...],
    texts: tuple[tuple[str, str], ...],
    sources: tuple[str, ...],
) -> Any:
    """Build the stack of a section, once per process.

    Args:
        name: key of the configuration
        evaluators: of correctionlib by what they are: scale, resolution, resolution_factor, or a source
        texts: name and content of text files, instead
        sources: of uncertainty, in order

    Raises:
        AdvtagError: coffea does not understand the files, or a source is not in them
    """
    if texts:
        return _text_stack(name, texts, sources)
    found = {what: _checked(evaluator) for what, evaluator in evaluators}
    return CorrectionLibJECStack(
        jec=CorrectionLibJEC(found["scale"]) if "scale" in found else None,
        junc=CorrectionLibJUNC([(source, found[source]) for source in sources]) if sources else None,
        jer=CorrectionLibJER(found["resolution"]) if "resolution" in found else None,
        jersf=CorrectionLibJERSF(found["resolution_factor"]) if "resolution" in found else None,
    )


def _checked(evaluator: Evaluator) -> Any:
    """What coffea's adapters take for a correction, with our errors."""
    names = [name for name, _ in evaluator.inputs]

    def evaluate(*args: Any) -> Floats:
        return evaluator.evaluate(dict(zip(names, args, strict=True)), len(args[0]))

    return SimpleNamespace(inputs=[SimpleNamespace(name=name) for name in names], evaluate=evaluate)


def _text_stack(section: str, texts: tuple[tuple[str, str], ...], sources: tuple[str, ...]) -> Any:
    """Read text files by coffea, which goes by their suffix and reads from disk."""
    reader = extractor()
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # numpy.core in coffea
            for name, content in texts:
                path = Path(folder) / f"{name.partition('.')[0]}.{_suffix(name)}.txt"
                path.write_text(content)
                reader.add_weight_sets([f"* * {path}"])
            reader.finalize()
            found = reader.make_evaluator()
            names = list(found.keys())  # it is no mapping
            wanted = [name for name in names if "UncertaintySources" not in name or name.rsplit("_", 1)[-1] in sources]
            stack = JECStack({name: found[name] for name in wanted})
    except Exception as error:  # coffea raises bare Exception for names and contents alike
        files = ", ".join(name for name, _ in texts)
        raise AdvtagError(f"corrections.{section}: {files}: {' '.join(str(error).split())[:200]}") from error
    levels = [] if stack.junc is None else stack.junc.levels
    for source in sources:
        if source not in levels:
            raise AdvtagError(f"corrections.{section}: no text file has a source {source!r}")
    return stack


def _suffix(name: str) -> str:
    """What kind of file a name of JME means."""
    known = {"_SF_": "jersf", "Resolution": "jr", "Uncertainty": "junc"}
    return next((suffix for part, suffix in known.items() if part in name), "jec")


def stack_parts(stack: Any) -> list[Any]:
    """The parts that a stack has."""
    return [part for part in (stack.jec, stack.junc, stack.jer, stack.jersf) if part is not None]
