"""What an audit may say of an image that a mirror keeps: no more than upstream confirms now."""

from __future__ import annotations

import pytest

from digestry.audit.audit import audit
from digestry.audit.findings import ContainerFinding
from digestry.audit.registry_queries import RegistryQueries
from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.inventory.observation import Claim
from digestry.model.digest import Digest
from tests.inventory.fakes import Listed, claim, sighted
from tests.registry.pull_through.support import Upstream, get
from tests.registry.pull_through.test_outages import refused
from tests.support import RegistryServer


def look(server: RegistryServer, name: str, tag: str, *claims: Claim) -> ContainerFinding:
    with Session(ClientOptions(retries=0)) as session:
        report = audit([Listed(sighted(f"{server.host}/{name}:{tag}", *claims))], RegistryQueries(session))
    (found,) = report.findings
    return found


@pytest.mark.long
def test_a_tag_that_upstream_cannot_confirm_is_not_current(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    digest = hub.image(name, "1")
    local = f"trouble18.test/{name}"
    assert get(mirror, local, "1").status == 200
    given = claim(digest, f"{mirror.host}/{local}")
    assert look(mirror, local, "1", given).tag.state == "current"
    hub.troubles[name] = refused(500)
    found = look(mirror, local, "1", given)
    assert found.tag.state == "unknown"
    assert found.assessment.state == "unknown"
    assert any("mirrors the tag" in reason for reason in found.reasons)


@pytest.mark.long
def test_what_a_mirror_never_saw_is_not_called_never_there(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    hub.image(name, "1")
    local = f"asking.test/{name}"
    for seen in (False, True):  # before the first pull through the mirror, and after it
        found = look(
            mirror, local, "1", claim(Digest.of(b"missed"), f"{mirror.host}/{local}", obtained=False)
        )
        assert found.tag.state == "unknown", seen
        get(mirror, local, "1")
