"""The transfer of blobs in threads, with progress, and a list of what was left out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Literal, Protocol

from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest

Stage = Literal["waiting", "present", "done", "mounted", "sent", "skipped"]
"""How far a blob is: its transfer has not begun; it was there already; it was pulled; it was mounted from
another repository; it was pushed; it is not transferred."""


class TransferObserver(Protocol):
    """A caller's view of a transfer. Its methods are called from several threads at once."""

    def stage(self, descriptor: Descriptor, stage: Stage) -> None:
        """Take note that a blob came to ``stage``: first ``waiting``, unless it is ``skipped``."""
        ...

    def moved(self, descriptor: Descriptor, count: int) -> None:
        """Take note of ``count`` more bytes of a blob; less than 0 if its transfer begins again."""
        ...


class SilentObserver:
    """An observer that does nothing."""

    def stage(self, descriptor: Descriptor, stage: Stage) -> None:
        pass

    def moved(self, descriptor: Descriptor, count: int) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Skipped:
    """Content that was not transferred, and the reason."""

    descriptor: Descriptor
    reason: str


@dataclass(slots=True)
class TransferTally:
    """The blobs of a transfer by the stage that each ended in. Thread-safe."""

    skipped: list[Skipped] = field(default_factory=list)
    _stages: dict[Stage, list[Descriptor]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, descriptor: Descriptor, stage: Stage) -> None:
        """Count a blob."""
        with self._lock:
            self._stages.setdefault(stage, []).append(descriptor)

    def at(self, stage: Stage) -> tuple[Descriptor, ...]:
        """Return the blobs that ended in ``stage``."""
        return tuple(self._stages.get(stage, ()))


def transferable_blobs(
    images: Iterable[Manifest], tally: TransferTally, observer: TransferObserver
) -> list[Descriptor]:
    """Return every blob of ``images`` once, the largest first.

    Those that a registry need not have, since their licence forbids it, are counted as skipped instead.
    """
    found: dict[Digest, Descriptor] = {}
    for image in images:
        for descriptor in image.blobs():
            if not (media_types.is_foreign(descriptor.media_type) and descriptor.urls):
                found.setdefault(descriptor.digest, descriptor)
            elif all(descriptor.digest != skipped.descriptor.digest for skipped in tally.skipped):
                reason = "its licence keeps it out of registries: engines fetch it from its own address"
                tally.skipped.append(Skipped(descriptor, reason))
                observer.stage(descriptor, "skipped")
    # The transfer ends when the last blob does.
    return sorted(found.values(), key=lambda descriptor: -descriptor.size)


class _Stopped(Exception):
    """Raised inside a transfer because another one has failed."""


def transfer_each(
    descriptors: list[Descriptor],
    work: Callable[[Descriptor, Callable[[int], None]], None],
    observer: TransferObserver,
    parallel: int,
) -> None:
    """Call ``work`` for each blob, ``parallel`` at a time, each in a thread.

    ``work`` gets the blob and a function to report bytes with. The first failure stops the others and is
    raised.
    """
    stop = threading.Event()

    def one(descriptor: Descriptor) -> None:
        def progress(count: int) -> None:
            if stop.is_set():
                raise _Stopped
            observer.moved(descriptor, count)

        if stop.is_set():
            return
        work(descriptor, progress)

    for descriptor in descriptors:
        observer.stage(descriptor, "waiting")
    with ThreadPoolExecutor(max_workers=max(1, parallel), thread_name_prefix="digestry-blob") as pool:
        futures: list[Future[None]] = [pool.submit(one, descriptor) for descriptor in descriptors]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # Also after Ctrl-C: the threads end at their next chunk.
            if not all(future.done() and future.exception() is None for future in futures):
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
    errors = [e for future in futures if not future.cancelled() and (e := future.exception()) is not None]
    for error in errors:
        if not isinstance(error, _Stopped):
            raise error
