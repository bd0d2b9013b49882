"""The transfer of blobs in threads, with progress, and a list of the skipped ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final, Literal, Protocol

import msgspec

from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest

_WORTH_THREADS: Final = 64 << 10
"""Bytes of all blobs together from which threads are worth their start."""
_FEW: Final = 2
"""Small blobs that are asked for one after the other: another connection would take as long to open."""

EXPECTED: Final = 3
"""Requests that follow the first one at the same time: nearly every image has a config and two layers."""

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


class Skipped(msgspec.Struct, frozen=True):
    """Content that was not transferred, and the reason."""

    descriptor: Descriptor
    reason: str


class TransferTally:
    """The blobs of a transfer by the stage that each ended in. Thread-safe."""

    def __init__(self) -> None:
        self.skipped: list[Skipped] = []
        self._stages: dict[Stage, list[Descriptor]] = {}
        self._lock = threading.Lock()

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
    *,
    is_far: bool = False,
) -> None:
    """Call ``work`` for each blob, each in a thread, so that ``parallel`` have their bytes under way.

    ``work`` gets the blob and a function to report bytes with. While one whose bytes have all come is made
    durable, the bytes of another come. The first failure stops the others and is raised. A few small ones
    come one after the other, unless the registry ``is_far`` away. Then half as many again as ``parallel`` are
    under way, since each connection has a rate of its own where packets are lost.
    """
    for descriptor in descriptors:
        observer.stage(descriptor, "waiting")
    parallel = max(1, parallel * 3 // 2 if is_far else parallel)
    crew = _Crew(descriptors, work, observer, parallel)
    few = len(descriptors) <= _FEW and sum(descriptor.size for descriptor in descriptors) <= _WORTH_THREADS
    if (few and not is_far) or len(descriptors) == 1:
        crew.run()  # threads would cost more than they save
    else:
        threads = [
            threading.Thread(target=crew.run, name=f"digestry-blob-{number}", daemon=True)
            for number in range(min(2 * parallel, len(descriptors)))
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:
            crew.stop.set()  # after Ctrl-C: the threads end at their next chunk
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            raise
    if crew.failure is not None:
        raise crew.failure


class _Turn:
    """A blob's right to have its bytes under way, from when there is one. Not for several threads at once."""

    def __init__(self, under_way: threading.Semaphore) -> None:
        self._under_way = under_way
        self._has_ended = False
        under_way.acquire()

    def end(self) -> None:
        """Let another blob have it. Does nothing the second time."""
        if not self._has_ended:
            self._has_ended = True
            self._under_way.release()


class _Crew:
    """Threads that transfer blobs, each the next one in the queue."""

    def __init__(
        self,
        descriptors: list[Descriptor],
        work: Callable[[Descriptor, Callable[[int], None]], None],
        observer: TransferObserver,
        parallel: int,
    ) -> None:
        self._waiting = iter(descriptors)
        self._under_way = threading.Semaphore(parallel)
        self._work = work
        self._observer = observer
        self._lock = threading.Lock()
        self.stop = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Transfer blobs until there is no other, or one has failed."""
        while not self.stop.is_set():
            turn = _Turn(self._under_way)
            try:
                with self._lock:
                    descriptor = None if self.stop.is_set() else next(self._waiting, None)
                if descriptor is None:
                    return
                self._work(descriptor, self._progress(descriptor, turn))
            except BaseException as error:  # noqa: BLE001 - raised in the calling thread
                self._fail(error)
            finally:
                turn.end()

    def _progress(self, descriptor: Descriptor, turn: _Turn) -> Callable[[int], None]:
        left = descriptor.size

        def progress(count: int) -> None:
            nonlocal left
            if self.stop.is_set():
                raise _Stopped
            self._observer.moved(descriptor, count)
            left -= count
            if not left:
                turn.end()  # what is left to do needs the disk, or the other side, alone

        return progress

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self.stop.set()
            if self.failure is None:
                self.failure = error
