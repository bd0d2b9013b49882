"""No registry makes a command wait for longer than it was told to."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from digestry.blobs.disk import DiskBlobs
from digestry.client.options import ClientOptions
from digestry.client.repository import Repository
from digestry.client.session import Session
from digestry.errors import DigestryError, Refused, Unreachable
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.client.liar import Liar, Reply, Request
from tests.client.test_hostile import DIGEST, manifest_reply


def repository(liar: Liar, told: list[str] | None = None, **options: float) -> Repository:
    tell = None if told is None else told.append
    session = Session(ClientOptions(tell=tell, **options))  # type: ignore[arg-type]
    return session.repository(Reference(liar.host, "team/app"))


def test_an_hour_is_not_waited_for(liar: Liar) -> None:
    liar.answer = lambda _: Reply(429, headers={"Retry-After": "3600"})
    begun = time.monotonic()
    with pytest.raises(Refused, match=r"asks to wait 3600 s \(Retry-After\)") as caught:
        repository(liar, waiting=30.0).pull_manifest("1")
    assert caught.value.retry_after == 3600
    assert time.monotonic() - begun < 5
    assert len(liar.seen) == 1


@pytest.mark.parametrize("said", ["0.3", "300ms", "soon", "-5", "9" * 30, "Wed, 99 Oct 2015 07:28:00 GMT"])
def test_what_is_no_whole_number_is_no_reason_to_give_up(liar: Liar, said: str) -> None:
    liar.answer = lambda _: (
        Reply(429, headers={"Retry-After": said}) if len(liar.seen) == 1 else manifest_reply()
    )
    assert repository(liar).pull_manifest("1").digest == DIGEST


@pytest.mark.long
def test_what_is_waited_for_is_said(liar: Liar) -> None:
    liar.answer = lambda _: Reply(503, headers={"Retry-After": "1"})
    told: list[str] = []
    with pytest.raises(DigestryError):
        repository(liar, told, waiting=1.5).pull_manifest("1")
    assert told == [f"{liar.host} asks to wait 1 s (Retry-After): waiting"]


def test_a_silent_registry(liar: Liar) -> None:
    def silent(_: Request) -> Reply:
        time.sleep(3)
        return Reply()

    liar.answer = silent
    begun = time.monotonic()
    with pytest.raises(Unreachable, match=r"waiting for 0\.5 s") as caught:
        repository(liar, waiting=0.5, patience=0.5).pull_manifest("1")
    assert "--timeout" in caught.value.hint
    assert time.monotonic() - begun < 3


def test_the_waiting_of_many_questions_counts_together(liar: Liar) -> None:
    liar.answer = lambda _: Reply(429, headers={"Retry-After": "0.2"})
    remote = repository(liar, waiting=0.5)
    for _ in range(3):
        with pytest.raises(DigestryError):
            remote.pull_manifest("1")
    assert len(liar.seen) <= 4


@pytest.mark.long
def test_a_blob_that_trickles(liar: Liar, tmp_path: Path) -> None:
    content = b"x" * 4000
    blob = Descriptor(media_types.OCI_LAYER, Digest.of(content), len(content))

    liar.answer = lambda _: Reply(200, content, gate=__import__("threading").Event())
    store = DiskBlobs(tmp_path)
    store.prepare()
    with pytest.raises(Unreachable), store.begin(blob.digest, blob.size) as sink:
        repository(liar, waiting=0.5, timeout=20.0, retries=0).pull_blob(blob, sink)
