"""Arrays on disk that are read and written by rows."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

Blocks = Sequence[tuple[int, int]]
"""Start and stop of rows."""


class DiskArray:
    """A `.npy` file with at least one row.

    No memory map: that would count as resident memory, and a full disk would end the process there without a word.

    Raises:
        OSError: no such file
        ValueError: no such array, or the file is not of the size that its header says
    """

    def __init__(self, path: Path) -> None:
        try:
            header = np.load(path, mmap_mode="r")
        except (EOFError, TokenError) as error:
            raise ValueError(f"{path}: damaged") from error
        self.path, self.dtype, self.shape = path, header.dtype, header.shape
        self.nbytes, self.start = header.nbytes, header.offset
        if path.stat().st_size != self.start + self.nbytes:
            raise ValueError(f"{path}: not of the size that its header says")

    @classmethod
    def create(cls, path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> Self:
        """A file of zeros, which take no space on the disk yet."""
        np.lib.format.open_memmap(path, "w+", dtype, shape)
        return cls(path)

    def read(self, blocks: Blocks) -> NDArray[Any]:
        """Blocks of rows, one after another, in fresh memory."""
        rows = np.empty((sum(stop - start for start, stop in blocks), *self.shape[1:]), self.dtype)
        with self.path.open("rb") as file:
            for piece in self._pieces(file, blocks, rows):
                if file.readinto(piece.data) != piece.nbytes:
                    raise OSError(f"{self.path}: shorter than it was")
        return rows

    def write(self, blocks: Blocks, rows: NDArray[Any]) -> None:
        """Put rows into blocks, one after another."""
        with self.path.open("r+b") as file:
            for piece in self._pieces(file, blocks, np.ascontiguousarray(rows, self.dtype)):
                file.write(piece.data)

    def _pieces(self, file: Any, blocks: Blocks, rows: NDArray[Any]) -> Iterator[NDArray[np.uint8]]:
        """Bytes of the rows of each block, with the file at its start."""
        done, width = 0, self.nbytes // self.shape[0]
        for start, stop in blocks:
            file.seek(self.start + start * width)
            yield rows[done : done + stop - start].reshape(-1).view(np.uint8)
            done += stop - start
