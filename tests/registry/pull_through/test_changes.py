"""What changed in a registry that mirrors others, for who keeps its answers."""

from __future__ import annotations

from digestry.admission.inquiry import InquiryOptions, inquire
from digestry.client.options import ClientOptions
from digestry.client.session import Session
from tests.registry.pull_through.support import Upstream, get
from tests.support import RegistryServer


def test_names_are_told_and_what_is_another_registrys_is_known_as_that(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    path = "/v2/_digestry/changes"
    token = mirror.request("GET", path).json()["token"]
    hub.image(name, "1")
    copied, own = f"asking.test/{name}", "changes/its-own"
    assert get(mirror, copied, "1").status == 200
    mirror.push_image(own, "1", b"changes of its own")
    found = mirror.request("GET", f"{path}?since={token}").json()
    assert "everything" not in found
    assert {copied, own} <= set(found["repositories"])
    images = [f"{mirror.host}/{repository}:1" for repository in (copied, own)]
    with Session(ClientOptions(retries=0)) as session:
        known = inquire(images, session, InquiryOptions())
    assert [known[image].missing for image in images] == ["", ""]
    assert [known[image].own for image in images] == [False, True]
