"""ProofCache by transparency logs: each counts for a minute, and none of a log that contradicts itself."""

from __future__ import annotations

import datetime

from digestry.admission.image_knowledge import ImageKnowledge
from digestry.admission.inquiry import parse_image
from digestry.admission.proof_cache import KEPT, ProofCache
from digestry.errors import LogContradiction, Unreachable
from digestry.model.digest import Digest
from digestry.model.reference import Reference

AT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def known(image: str) -> ImageKnowledge:
    return ImageKnowledge(image, parse_image(image), AT, digest=Digest.of(image.encode()))


ONE, TWO, OTHER = known("r.example/a:1"), known("r.example/a:2"), known("s.example/a:1")


class Log:
    """What proves, and may begin to fail."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.error: Exception | None = None

    def __call__(self, reference: Reference, _: Digest) -> None:
        self.asked.append(str(reference))
        if self.error is not None and reference.host == "r.example":
            raise self.error


def test_a_proof_counts_for_a_while() -> None:
    now, log = [0.0], Log()
    proofs = ProofCache(log, clock=lambda: now[0])
    for _ in range(3):
        (found,) = proofs.of_all([ONE])
        assert found.proven
    assert log.asked == ["r.example/a:1"]
    now[0] += KEPT + 1
    log.error = Unreachable("it is away")
    (found,) = proofs.of_all([ONE])
    assert not found.proven
    assert not found.proof_refused
    assert "it is away" in found.proof_unknown


def test_a_forked_log_has_proven_nothing() -> None:
    log = Log()
    proofs = ProofCache(log, clock=lambda: 0.0)
    assert all(one.proven for one in proofs.of_all([ONE, OTHER]))
    log.error = LogContradiction("the log was forked")
    (found,) = proofs.of_all([TWO])
    assert found.proof_refused == "the log was forked"
    # What it proved a moment ago does not count any more; another registry's log is another.
    one, other = proofs.of_all([ONE, OTHER])
    assert one.proof_refused == "the log was forked"
    assert other.proven
    assert log.asked == ["r.example/a:1", "s.example/a:1", "r.example/a:2", "r.example/a:1"]
