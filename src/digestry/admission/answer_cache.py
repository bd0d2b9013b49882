"""A cache of what registries answered about images: bounded, and each answer with its age."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from digestry.admission.image_knowledge import ImageKnowledge


@dataclass(slots=True)
class _Remembered:
    knowledge: ImageKnowledge
    known_at: float
    used_at: float


class AnswerCache:
    """Answers by image. Thread-safe. At most ``most`` are kept, those that were used last, and none that no
    request has used for ``keep`` seconds."""

    def __init__(self, most: int, keep: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._keep = keep
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Remembered] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def limit(self, most: int, keep: float) -> None:
        """Change the limits."""
        with self._lock:
            self._most, self._keep = most, keep
            self._shrink()

    def get(self, image: str) -> tuple[ImageKnowledge, float] | None:
        """Return what is known of an image, for a request, and its age in seconds; None if nothing is."""
        with self._lock:
            found = self._known.get(image)
            if found is None:
                return None
            now = self._clock()
            found.used_at = now
            self._known.move_to_end(image)
            return found.knowledge, now - found.known_at

    def put(self, answers: Iterable[ImageKnowledge], begun: float) -> None:
        """Remember answers to questions that were begun at ``begun``, by the clock. One of a registry that
        was away replaces nothing, and neither does one that is older."""
        with self._lock:
            now = self._clock()
            for answer in answers:
                if answer.away or not answer.asked_registry:
                    continue
                known = self._known.get(answer.image)
                if known is None:
                    self._known[answer.image] = _Remembered(answer, begun, now)
                elif known.known_at <= begun:
                    known.knowledge, known.known_at = answer, begun
            self._shrink()

    def confirm(self, images: Iterable[str], begun: float) -> None:
        """Note that the answers about ``images`` are as they were, by a question that was begun at
        ``begun``."""
        with self._lock:
            for image in images:
                known = self._known.get(image)
                if known is not None:
                    known.known_at = max(known.known_at, begun)

    def by_host(self) -> dict[str, dict[str, ImageKnowledge]]:
        """Return the remembered images by registry, without those that nobody used for long.

        A name that its registry does not have is not among them: anybody can make up thousands of them.
        """
        with self._lock:
            limit = self._clock() - self._keep
            while self._known and next(iter(self._known.values())).used_at < limit:
                self._known.popitem(last=False)
            hosts: dict[str, dict[str, ImageKnowledge]] = {}
            for image, known in self._known.items():
                reference = known.knowledge.reference
                if reference is not None and not known.knowledge.missing:
                    hosts.setdefault(reference.host, {})[image] = known.knowledge
            return hosts

    def oldest(self) -> float:
        """Return the age of the oldest answer that is kept up to date, in seconds; 0 if there is none."""
        with self._lock:
            now = self._clock()
            times = (known.known_at for known in self._known.values() if not known.knowledge.missing)
            return max((now - time for time in times), default=0.0)

    def _shrink(self) -> None:
        while len(self._known) > self._most:
            self._known.popitem(last=False)
