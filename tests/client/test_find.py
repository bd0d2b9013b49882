"""Whether a registry has a tag or digest: one request, unless its response to HEAD says nothing."""

from __future__ import annotations

import json

import pytest

from digestry.client.repository import Repository
from digestry.errors import Refused
from digestry.model import media_types
from digestry.model.digest import Digest
from tests.client.liar import Liar, Reply, Request

_INDEX = json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": []}).encode()


class _Registry:
    """A registry that answers HEAD with ``status``, and has the index for GET if ``has_it``."""

    def __init__(self, status: int, *, has_it: bool) -> None:
        self._status = status
        self._has_it = has_it
        self.methods: list[str] = []

    def __call__(self, request: Request) -> Reply:
        self.methods.append(request.method)
        if request.method == "HEAD":
            return Reply(self._status)
        return Reply(200, _INDEX, {"Content-Type": media_types.OCI_INDEX}) if self._has_it else Reply(404)


def test_a_404_to_head_is_believed(liar: Liar, hostile: Repository) -> None:
    liar.answer = registry = _Registry(404, has_it=True)
    assert hostile.find("1") is None
    assert registry.methods == ["HEAD"]


@pytest.mark.parametrize("status", [200, 405])
def test_what_head_leaves_open_is_asked_with_get(liar: Liar, hostile: Repository, status: int) -> None:
    liar.answer = registry = _Registry(status, has_it=True)
    found = hostile.find("1")
    assert found is not None
    assert found.digest == Digest.of(_INDEX)
    assert registry.methods == ["HEAD", "GET"]
    liar.answer = _Registry(status, has_it=False)
    assert hostile.find("1") is None


def test_a_registry_that_cannot_say_has_not_said_no(liar: Liar, hostile: Repository) -> None:
    liar.answer = _Registry(503, has_it=True)
    with pytest.raises(Refused):
        hostile.find("1")
