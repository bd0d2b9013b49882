"""An upstream's documents with the wrong types: read, or answered 502 in words of ours; never a defect."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.client.liar import Liar, Reply, Request, lying
from tests.registry.pull_through.support import mirroring
from tests.support import RegistryServer, descriptor
from tests.typefuzz import SAMPLED, mutations

DIGEST = Digest.of(b"x")
TOKEN = {"token": "t", "access_token": "t", "expires_in": 300, "issued_at": "2026-01-01T00:00:00Z"}
TAGS = {"name": "own/x", "tags": ["1", "2"]}
MANIFEST = {
    "schemaVersion": 2,
    "mediaType": media_types.OCI_MANIFEST,
    "config": descriptor(media_types.OCI_CONFIG, DIGEST, 1),
    "layers": [descriptor(media_types.OCI_LAYER, DIGEST, 1, annotations={"a": "b"}, urls=["https://a.test"])],
    "subject": descriptor(media_types.OCI_MANIFEST, DIGEST, 1),
    "annotations": {"a": "b"},
}
INDEX = {
    "schemaVersion": 2,
    "mediaType": media_types.OCI_INDEX,
    "manifests": [
        descriptor(media_types.OCI_MANIFEST, DIGEST, 1, platform={"architecture": "arm", "os": "linux"})
    ],
}
ERRORS = {"errors": [{"code": "DENIED", "message": "no", "detail": {"damaged": True}}]}


@pytest.fixture(scope="module")
def odd() -> Iterator[Liar]:
    with lying() as liar:
        yield liar


@pytest.fixture(scope="module")
def mirror(odd: Liar, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    table = f'[mirror."odd.test"]\nurl = "http://{odd.host}"\ntag-ttl = 0'
    with mirroring(tmp_path_factory.mktemp("odd") / "mirror", table) as server:
        yield server


def _as_token(odd: Liar, raw: bytes) -> Callable[[Request], Reply]:
    def answer(request: Request) -> Reply:
        if request.path == "/token":
            return Reply(200, raw)
        return Reply(401, b"{}", {"WWW-Authenticate": f'Bearer realm="http://{odd.host}/token"'})

    return answer


def _as_manifest(_: Liar, raw: bytes) -> Callable[[Request], Reply]:
    return lambda _: Reply(200, raw, {"Content-Type": media_types.OCI_MANIFEST})


def _as_list(_: Liar, raw: bytes) -> Callable[[Request], Reply]:
    return lambda _: Reply(200, raw, {"Content-Type": media_types.OCI_INDEX})


def _as_error(_: Liar, raw: bytes) -> Callable[[Request], Reply]:
    return lambda _: Reply(403, raw)


@SAMPLED
@pytest.mark.parametrize(
    ("document", "sent", "asked"),
    [
        (TOKEN, _as_token, "manifests/1"),
        (TAGS, _as_list, "tags/list"),
        (MANIFEST, _as_manifest, "manifests/1"),
        (INDEX, _as_list, "manifests/1"),
        (INDEX, _as_list, f"referrers/{DIGEST}"),
        (ERRORS, _as_error, "manifests/1"),
    ],
    ids=["token", "tags", "manifest", "index", "referrers", "error"],
)
def test_odd_documents(  # noqa: PLR0917 - a test
    mirror: RegistryServer,
    odd: Liar,
    request: pytest.FixtureRequest,
    document: object,
    sent: Callable[[Liar, bytes], Callable[[Request], Reply]],
    asked: str,
    every: int,
) -> None:
    name = f"{every}-" + request.node.callspec.id.split("-")[0]
    taken = itertools.islice(mutations(document), None, None, every)
    for number, (what, raw) in enumerate(taken):
        odd.answer = sent(odd, raw)
        answer = mirror.request("GET", f"/v2/odd.test/{name}/{number}/{asked}")
        assert answer.status in {200, 403, 404, 502}, (what, answer)
    log = mirror.log.read_text()
    assert "Traceback" not in log
    assert "cannot be read" not in log  # that would be what nobody thought of
