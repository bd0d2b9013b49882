"""What an audit asks of a registry that is no digestry, counted on the wire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from digestry.audit.audit import audit
from digestry.audit.registry_queries import RegistryQueries
from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.model import media_types
from tests.audit.fakes import FakeRegistries, FakeRepository
from tests.client.liar import Reply, Request, lying, not_found
from tests.inventory.fakes import Listed, claim, image_id, sighted


def serving(app: FakeRepository) -> Callable[[Request], Reply]:
    """A registry with what the standard has, and no extension."""

    def answer(request: Request) -> Reply:
        what, _, target = request.path.rpartition("/")
        if what.endswith("/referrers"):
            index = b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % media_types.OCI_INDEX.encode()
            return Reply(200, index, {"Content-Type": media_types.OCI_INDEX})
        if not what.endswith("/manifests"):
            return not_found(request)
        digest = app.pointers.get(target)
        found = {str(one): one for one in app.manifests}.get(target, digest)
        if found is None:
            return not_found(request)
        manifest = app.manifests[found]
        headers = {"Content-Type": manifest.media_type, "Docker-Content-Digest": str(found)}
        return Reply(200, manifest.raw, headers)

    return answer


def test_another_registry_is_asked_for_nothing_of_ours() -> None:
    with lying() as liar, Session(ClientOptions(timeout=10, retries=1)) as session:
        name = f"{liar.host}/app"
        app = FakeRegistries().at(name)
        images = [app.image(str(number), f"t{number}") for number in range(5)]
        liar.answer = serving(app)
        seen = [
            sighted(f"{name}:t{number}", claim(one.manifest, name), image_id(one.config), name=str(number))
            for number, one in enumerate(images)
        ]
        report = audit([Listed(*seen)], RegistryQueries(session))
    assert report.problems == ()
    assert {finding.tag.state for finding in report.findings} == {"current"}
    asked = Counter(request.path.removeprefix("/v2/").split("/")[1] for request in liar.seen)
    assert asked["ext"] == 1  # _oci/ext/discover
    assert asked["_digestry"] == 0
    # The running manifest, where the tag points (HEAD and GET), and the two tags at which something may
    # hang on it.
    assert asked["manifests"] <= 7 * len(images)
    # What is attached to the manifest, to its layer, and to its config.
    assert asked["referrers"] <= 3 * len(images)
