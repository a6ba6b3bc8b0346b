"""Ctrl-C reaches all processes of a terminal; who is to act on it?"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def children_without_interrupts() -> Iterator[None]:
    """Processes started here ignore Ctrl-C, and so does this one meanwhile: it is the parent's to handle.

    A worker killed while it sends its output would hang the pool; a `condor_rm` killed would leave jobs behind.
    """
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of the block."""
    if threading.current_thread() is not threading.main_thread():  # handlers run in the main thread alone
        yield
        return
    caught: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, lambda number, _: caught.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for one in caught:
            signal.raise_signal(one)
