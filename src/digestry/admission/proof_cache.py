"""A cache of proofs by transparency logs, each of which takes several requests."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from digestry.admission.image_knowledge import ImageKnowledge
from digestry.errors import DigestryError, LogContradiction, Unreachable
from digestry.model.digest import Digest
from digestry.model.reference import Reference

KEPT: Final = 60.0
"""Seconds for which a proof counts, and a log that does not prove something is not asked again."""

_MOST: Final = 20_000
_PARALLEL: Final = 8

Prove = Callable[[Reference, Digest], None]
"""Raises :class:`~digestry.errors.DigestryError` unless the log of an image's registry proves that its tag
points to this digest now, or, for a name with a digest, that a tag has pointed there."""


class ProofCache:
    """Proofs by ``prove``, each asked for once in ``kept`` seconds. Thread-safe."""

    def __init__(
        self, prove: Prove, *, kept: float = KEPT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._prove = prove
        self._kept = kept
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Reference, Digest], tuple[float, str, bool]] = OrderedDict()

    def of_all(self, images: list[ImageKnowledge]) -> list[ImageKnowledge]:
        """Return the knowledge of ``images`` with what their registries' logs prove."""
        with ThreadPoolExecutor(_PARALLEL, "proof") as pool:
            return list(pool.map(self._of, images))

    def _of(self, image: ImageKnowledge) -> ImageKnowledge:
        if image.reference is None or image.digest is None or image.away or image.missing:
            return image
        key = image.reference, image.digest
        now = self._clock()
        with self._lock:
            known = self._known.get(key)
        if known is None or now - known[0] > self._kept:
            known = (now, *self._asked(*key))
            with self._lock:
                self._known[key] = known
                self._known.move_to_end(key)
                while len(self._known) > _MOST:
                    self._known.popitem(last=False)
        _, reason, answered = known
        if not reason:
            return replace(image, proven=True, proof_unknown="")
        if answered:
            return replace(image, proof_refused=reason, proof_unknown="")
        return replace(image, proof_unknown=f"whether the log proves it: {reason}")

    def _forget(self, host: str) -> None:
        """Forget what the log of ``host`` proved: it contradicts what was seen of it."""
        with self._lock:
            for key in [key for key in self._known if key[0].host == host]:
                del self._known[key]

    def _asked(self, reference: Reference, digest: Digest) -> tuple[str, bool]:
        """Return why there is no proof, empty if there is one; and whether the log was read."""
        try:
            self._prove(reference, digest)
        except Unreachable as error:
            return error.message, False
        except LogContradiction as error:
            self._forget(reference.host)
            return error.message, True
        except DigestryError as error:
            return error.message, True
        return "", True
