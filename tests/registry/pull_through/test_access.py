"""Who may pull through a mirror, and as whom, and how surely, the other registry is asked."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import certificates
from tests.client.liar import Reply, Request, lying
from tests.registry.access.support import As, challenge, guarded, nobody, of, token
from tests.registry.pull_through.support import Upstream, get, mirroring
from tests.support import RegistryServer

_RULES = """
[mirror."open.test"]
url = "{url}"
default = true
[mirror."closed.test"]
url = "{url}"
[[rule]]
who = "anonymous"
repository = "open.test/**"
actions = "pull"
[[rule]]
who = "alice"
repository = ["closed.test/**", "own/**"]
actions = ["pull", "push", "move-tag"]
[[rule]]
who = "bob"
repository = "bob/*"
actions = "pull"
"""


@pytest.fixture(scope="module")
def ruled(hub: Upstream) -> Iterator[RegistryServer]:
    with guarded(_RULES.format(url=hub.url)) as server:
        yield server


def test_what_everybody_may_pull_needs_no_login(ruled: RegistryServer, hub: Upstream, name: str) -> None:
    digest = hub.image(name, "1")
    for path in (f"open.test/{name}", name):
        assert get(ruled, path, "1").headers["docker-content-digest"] == str(digest)


def test_dockers_token_is_for_the_name_without_the_prefix(
    ruled: RegistryServer, hub: Upstream, name: str
) -> None:
    # dockerd gets a token for what it calls the repository, as nobody, before it asks.
    hub.image(name, "1")
    asked = challenge(ruled.request("GET", "/v2/"))
    assert asked["scheme"] == "Bearer"
    bearer = token(ruled, f"repository:{name}:pull", service=asked["service"])["token"]
    assert get(ruled, name, "1", Authorization=f"Bearer {bearer}").status == 200


def test_the_rules_are_about_the_name_here(ruled: RegistryServer, hub: Upstream, name: str) -> None:
    hub.image(name, "1")
    path = f"/v2/closed.test/{name}/manifests/1"
    assert challenge(nobody(ruled).request("GET", path))["scope"] == f"repository:closed.test/{name}:pull"
    assert challenge(nobody(ruled).request("GET", f"/v2/{name}/manifests/1?ns=closed.test"))
    # Bob is known, and sees nothing there; upstream is not asked for him.
    for what in ("manifests/1", "tags/list", "blobs/sha256:" + "a" * 64, "manifests/sha256:" + "a" * 64):
        assert of(ruled, "bob").request("GET", f"/v2/closed.test/{name}/{what}").status == 404
    assert (
        of(ruled, "bob")
        .request("GET", f"/v2/closed.test/{name}/referrers/sha256:{'a' * 64}")
        .json()["manifests"]
        == []
    )
    assert hub.asked(name) == []
    assert of(ruled, "alice").request("GET", path).status == 200
    assert of(ruled, "bob").request("GET", path).status == 404


def test_the_rules_are_about_the_name_here_for_its_history_too(
    ruled: RegistryServer, hub: Upstream, name: str
) -> None:
    def entries(who: RegistryServer | As, repository: str) -> int:
        return len(who.request("GET", f"/v2/{repository}/_digestry/journal").json()["entries"])

    hub.image(name, "1")
    get(ruled, name, "1")
    assert entries(nobody(ruled), name) == entries(of(ruled, "bob"), name) == 1
    closed = f"closed.test/{name}"
    of(ruled, "alice").request("GET", f"/v2/{closed}/manifests/1")
    assert nobody(ruled).request("GET", f"/v2/{closed}/_digestry/journal").status == 401
    assert (entries(of(ruled, "bob"), closed), entries(of(ruled, "alice"), closed)) == (0, 1)
    of(ruled, "alice").push_image(name, "1")  # from now on it is not the mirror's that is meant
    assert nobody(ruled).request("GET", f"/v2/{name}/_digestry/journal").status == 401
    assert (entries(of(ruled, "bob"), name), entries(of(ruled, "alice"), name)) == (0, 1)


def test_nobody_pushes_there_whatever_the_rules_say(ruled: RegistryServer, name: str) -> None:
    path = f"/v2/closed.test/{name}/blobs/uploads/"
    assert of(ruled, "alice").request("POST", path).status == 405
    assert of(ruled, "bob").request("POST", path).status == 403
    assert nobody(ruled).request("POST", path).status == 401


def test_a_name_of_ones_own_is_never_another_registrys(
    ruled: RegistryServer, hub: Upstream, name: str
) -> None:
    # Who may not see our repository must not be given a stranger's image of the same name.
    hub.image(name, "1", layer=b"a stranger's")
    assert of(ruled, "alice").push_image(name, "1").status == 201
    assert get(ruled, name, "1").status == 401
    assert of(ruled, "bob").request("GET", f"/v2/{name}/manifests/1").status == 404
    assert "digestry-upstream" not in of(ruled, "alice").request("GET", f"/v2/{name}/manifests/1").headers


@pytest.mark.long
def test_a_password_that_changes_is_read_again(tmp_path: Path, hub: Upstream, name: str) -> None:
    digest = hub.image(name, "1")
    seen: list[str] = []

    def private(request: Request) -> Reply | None:
        given = request.headers.get("Authorization", "")
        seen.append(given)
        pair = base64.b64decode(given.partition(" ")[2]).decode()
        return None if pair == "robot:second" else Reply(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})

    hub.troubles[name] = private
    keys = f'url = "{hub.url}"\nusername = "robot"\npassword-file = "secret"'
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "secret").write_text("first\n")
    with mirroring(tmp_path / "server", f'[mirror."private.test"]\n{keys}') as server:
        answer = get(server, f"private.test/{name}", "1")
        assert (answer.status, answer.code) == (403, "DENIED")
        (tmp_path / "server" / "secret").write_text("second\n")
        assert get(server, f"private.test/{name}", "1").headers["docker-content-digest"] == str(digest)
        (tmp_path / "server" / "secret").unlink()
        answer = get(server, f"private.test/{name}", "2")
        assert answer.status == 502
        assert b"secret" not in answer.body  # which file it is, is for the log
        assert "secret" in server.log.read_text()


@pytest.mark.long
@pytest.mark.peer("openssl")
def test_an_authority_of_ones_own(tmp_path: Path, name: str) -> None:
    made = certificates.make(tmp_path / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*made.server)
    with lying(tls=context) as liar:
        hub = Upstream(liar)
        liar.answer = hub.answer
        digest = hub.image(name, "1")
        tables = (
            f'[mirror."trusted.test"]\nurl = "https://{liar.host}"\nca = "{made.authority}"\n'
            f'[mirror."stranger.test"]\nurl = "https://{liar.host}"\n'
        )
        with mirroring(tmp_path / "server", tables) as server:
            answer = get(server, f"stranger.test/{name}", "1")
            assert answer.status == 503
            assert "its certificate cannot be trusted" in server.log.read_text()
            assert hub.asked(name) == []
            answer = get(server, f"trusted.test/{name}", "1")
            assert answer.headers["docker-content-digest"] == str(digest)
