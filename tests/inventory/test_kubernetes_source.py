"""A cluster as a source: lists, rights, and API servers that hang, lie or never end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from digestry.cli.output import printable
from digestry.errors import DigestryError, InvalidConfiguration, ProtocolViolation, TooLarge
from digestry.inventory.kube.api import KubeAPI
from digestry.inventory.kube.config import find_access
from digestry.inventory.kube.credentials import Credentials
from digestry.inventory.source_selection import parse_source
from digestry.inventory.sources.kubernetes import KubernetesSource, Where
from tests.inventory.fakes import AMD64
from tests.inventory.kube import (
    LISTS,
    TOKEN,
    Asked,
    Cluster,
    Handler,
    Papers,
    kubeconfig,
    listing,
    make_papers,
    observe,
    problems,
    rows,
    running_cluster,
    running_proxy,
    status,
)
from tests.inventory.test_pods import running

pytestmark = pytest.mark.peer("openssl")


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return make_papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture
def cluster(papers: Papers) -> Iterator[Cluster]:
    with running_cluster(papers.server) as server:
        yield server


@pytest.fixture
def environment(cluster: Cluster, papers: Papers, tmp_path: Path) -> dict[str, str]:
    return kubeconfig(tmp_path / "config", trusted(cluster, papers))


def trusted(cluster: Cluster, papers: Papers) -> dict[str, Any]:
    return {"server": cluster.url, "certificate-authority-data": papers.data("ca.pem")}


def messages(observations: list[Any]) -> list[str]:
    return [one.message for one in problems(observations)]


# -- what is seen -------------------------------------------------------------------------------


@pytest.mark.long
def test_a_cluster_pods_and_templates(cluster: Cluster, environment: dict[str, str]) -> None:
    cluster.fill()
    found = observe(environment)
    assert problems(found) == []
    names = rows(found)
    assert names["web-7d9c5b6f4b-x2x9p/app"].image.platform == AMD64
    assert any("deployment/web names" in remark for remark in names["web-7d9c5b6f4b-x2x9p/app"].remarks)
    assert {name for name, row in names.items() if not row.runs} == {
        "deployment/asleep/app",
        "deployment/asleep-pinned/app",
        "cronjob/backup/dump",
        "cronjob/report/report",
        "job/import-once/import",
    }
    assert {one.headers["Authorization"] for one in cluster.asked} == {f"Bearer {TOKEN}"}
    assert {one.query["limit"] for one in cluster.asked} == {"500"}
    assert sorted(cluster.paths()) == sorted(["/api/v1/nodes", "/api/v1/pods", *LISTS.values()])


def test_pages_are_followed_to_the_end(cluster: Cluster, environment: dict[str, str]) -> None:
    cluster.fill()
    whole = rows(observe(environment))
    cluster.asked.clear()
    cluster.page = 2
    assert set(rows(observe(environment))) == set(whole)
    assert cluster.paths().count("/api/v1/pods") == 6


def test_some_namespaces_and_a_selector(cluster: Cluster, environment: dict[str, str]) -> None:
    cluster.fill()
    found = observe(environment, "main?namespace=kube-system&selector=app%3Dagent")
    assert problems(found) == []
    assert set(rows(found)) == {"agent-q8z5d/agent"}
    asked = {one.path: one.query for one in cluster.asked}
    assert asked["/api/v1/namespaces/kube-system/pods"]["labelSelector"] == "app=agent"
    assert asked["/apis/batch/v1/namespaces/kube-system/cronjobs"]["labelSelector"] == "app=agent"


def test_a_namespace_that_is_not_there_is_a_problem(cluster: Cluster, environment: dict[str, str]) -> None:
    cluster.fill()
    assert messages(observe(environment, "?namespace=shop,shopp")) == ["there is no namespace 'shopp'"]


def test_include_stopped(cluster: Cluster, environment: dict[str, str]) -> None:
    cluster.fill()
    assert "backup-29401200-4xk2b/dump" in rows(observe(environment, include_stopped=True))


# -- rights -------------------------------------------------------------------------------------


def test_without_the_right_to_list_pods(cluster: Cluster, environment: dict[str, str]) -> None:
    cluster.fill()
    cluster.forbidden = {"/api/v1/pods"}
    found = observe(environment)
    [problem] = problems(found)
    assert (
        '/api/v1/pods: this user lacks the verb "list" on "pods" (403): pods is forbidden' in problem.message
    )
    assert "deploy/kubernetes/base/rbac.yaml" in problem.hint
    assert "kubernetes:CONTEXT?namespace=a,b" in problem.hint
    # What has pods by its own count is not said to have none.
    assert "deployment/web/app" not in rows(found)
    assert "deployment/asleep/app" in rows(found)


def test_without_the_right_to_list_workloads(cluster: Cluster, environment: dict[str, str]) -> None:
    cluster.fill()
    cluster.forbidden = {"cronjobs", "jobs"}
    found = observe(environment)
    assert len(problems(found)) == 2
    assert '"list" on "cronjobs"' in messages(found)[0]
    assert "cronjobs that have no pods are not listed" in messages(found)[0]
    assert "web-7d9c5b6f4b-x2x9p/app" in rows(found)


def test_without_the_right_to_list_nodes_is_a_remark(cluster: Cluster, environment: dict[str, str]) -> None:
    cluster.fill()
    cluster.forbidden = {"nodes"}
    found = observe(environment)
    assert problems(found) == []
    row = rows(found)["agent-q8z5d/agent"]
    assert row.image.platform is None
    assert row.remarks == ('its node\'s platform is not known: this user lacks the verb "list" on "nodes"',)


def test_refused_credentials_are_one_problem(cluster: Cluster, environment: dict[str, str]) -> None:
    cluster.users = {"Bearer another"}
    [problem] = problems(observe(environment))
    assert "does not accept the user of 'main' (401)" in problem.message
    assert "log in again" in problem.hint
    assert TOKEN not in problem.message + problem.hint


# -- TLS and credentials ------------------------------------------------------------------------


def test_another_authority_is_not_trusted(cluster: Cluster, papers: Papers, tmp_path: Path) -> None:
    entry = {"server": cluster.url, "certificate-authority": str(papers.path("other.pem"))}
    found = observe(kubeconfig(tmp_path / "config", entry))
    assert "certificate cannot be trusted" in messages(found)[-1]
    assert cluster.asked == []
    found = observe(kubeconfig(tmp_path / "config", {"server": cluster.url}))
    assert "certificate cannot be trusted" in messages(found)[-1]


def test_verification_is_off_only_if_the_kubeconfig_says_so(cluster: Cluster, tmp_path: Path) -> None:
    cluster.fill()
    entry = {"server": cluster.url, "insecure-skip-tls-verify": True}
    assert problems(observe(kubeconfig(tmp_path / "config", entry))) == []


def test_the_servers_name_may_be_another(papers: Papers, tmp_path: Path) -> None:
    context = papers.server
    context.load_cert_chain(papers.path("named.pem"), papers.path("named.key"))
    with running_cluster(context) as cluster:
        cluster.fill()
        entry = trusted(cluster, papers)
        assert "certificate cannot be trusted" in messages(observe(kubeconfig(tmp_path / "a", entry)))[-1]
        entry["tls-server-name"] = "named.example"
        assert problems(observe(kubeconfig(tmp_path / "b", entry))) == []


@pytest.mark.parametrize("inline", [True, False])
def test_a_client_certificate(cluster: Cluster, papers: Papers, tmp_path: Path, inline: bool) -> None:
    cluster.fill()
    cluster.users = set()
    user = (
        {"client-certificate-data": papers.data("client.pem"), "client-key-data": papers.data("client.key")}
        if inline
        else {
            "client-certificate": str(papers.path("client.pem")),
            "client-key": str(papers.path("client.key")),
        }
    )
    assert problems(observe(kubeconfig(tmp_path / "config", trusted(cluster, papers), user))) == []
    assert {one.user for one in cluster.asked} == {"client"}


def test_a_key_that_is_not_its_certificates(cluster: Cluster, papers: Papers, tmp_path: Path) -> None:
    user = {"client-certificate-data": papers.data("client.pem"), "client-key-data": papers.data("ca.key")}
    found = observe(kubeconfig(tmp_path / "config", trusted(cluster, papers), user))
    assert "the client certificate of 'main' cannot be used" in messages(found)[-1]


def test_nothing_secret_is_sent_without_tls(tmp_path: Path) -> None:
    with running_cluster(None) as cluster:
        observe(kubeconfig(tmp_path / "config", {"server": cluster.url}))
        assert cluster.asked
        assert not any("Authorization" in one.headers for one in cluster.asked)


def test_a_token_of_a_file_is_read_again_when_refused(
    cluster: Cluster, papers: Papers, tmp_path: Path
) -> None:
    cluster.fill()
    token = tmp_path / "token"
    token.write_text("old\n")

    def renew(handler: Handler, asked: Asked) -> None:
        token.write_text(f"{TOKEN}\n")
        cluster.answers.clear()
        handler.say(401, status(401, "Unauthorized"))

    cluster.answers["/api/v1/nodes"] = renew
    environment = kubeconfig(tmp_path / "config", trusted(cluster, papers), {"tokenFile": "token"})
    assert problems(observe(environment)) == []


def test_acting_as_somebody_else(cluster: Cluster, papers: Papers, tmp_path: Path) -> None:
    user = {"token": TOKEN, "as": "auditor", "as-groups": ["readers"], "as-user-extra": {"why": ["audit"]}}
    observe(kubeconfig(tmp_path / "config", trusted(cluster, papers), user))
    headers = cluster.asked[0].headers
    assert headers["Impersonate-User"] == "auditor"
    assert headers["Impersonate-Group"] == "readers"
    assert headers["Impersonate-Extra-why"] == "audit"


def test_a_token_that_cannot_be_sent(cluster: Cluster, papers: Papers, tmp_path: Path) -> None:
    found = observe(kubeconfig(tmp_path / "config", trusted(cluster, papers), {"token": "a\r\nX: y"}))
    assert "has something that cannot be sent" in messages(found)[0]
    assert cluster.asked == []


def test_a_proxy(cluster: Cluster, papers: Papers, tmp_path: Path) -> None:
    cluster.fill()
    with running_proxy() as (url, asked):
        entry = trusted(cluster, papers) | {"proxy-url": url}
        assert problems(observe(kubeconfig(tmp_path / "config", entry))) == []
        assert set(asked) == {cluster.url.removeprefix("https://")}


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "nonsense", "http://", "http://[x"])
def test_a_proxy_that_cannot_be_used(cluster: Cluster, papers: Papers, tmp_path: Path, proxy: str) -> None:
    found = observe(kubeconfig(tmp_path / "config", trusted(cluster, papers) | {"proxy-url": proxy}))
    assert messages(found) == [f"{cluster.url}: the proxy of that cluster cannot be used"]
    assert cluster.asked == []


# -- servers that are ill -----------------------------------------------------------------------


def answer(cluster: Cluster, path: str, body: Any, code: int = 200, **headers: str) -> None:
    cluster.answers[path] = lambda handler, asked: handler.say(code, body, **headers)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>login</html>",
        b"",
        b"[]",
        b"3",
        b"null",
        b'{"items": 3}',
        b'{"items": {}}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_what_is_no_list_is_a_problem(cluster: Cluster, environment: dict[str, str], body: bytes) -> None:
    cluster.fill()
    answer(cluster, "/api/v1/pods", body)
    found = observe(environment)
    [message] = messages(found)
    assert "is not JSON" in message or "the answer is not a list of pods" in message
    assert "cronjob/backup/dump" in rows(found)


def test_an_empty_list_in_gos_words(cluster: Cluster, environment: dict[str, str]) -> None:
    answer(cluster, "/api/v1/pods", {"kind": "PodList", "metadata": {}, "items": None})
    assert observe(environment) == []


def test_a_list_that_goes_round_in_a_circle(cluster: Cluster, environment: dict[str, str]) -> None:
    answer(cluster, "/api/v1/pods", listing([running("reg.example/app:1")], "again"))
    found = observe(environment)
    assert len(rows(found)) == 1
    assert "goes round in a circle" in messages(found)[0]


def test_a_list_that_never_ends(cluster: Cluster, environment: dict[str, str]) -> None:
    def more(handler: Handler, asked: Asked) -> None:
        handler.say(200, listing([], str(int(asked.query.get("continue", "0")) + 1)))

    cluster.answers["/api/v1/pods"] = more
    access = find_access(environment=environment)
    api = KubeAPI(access, Credentials(access.user, access.cluster), most_pages=20)
    with pytest.raises(TooLarge, match="more than 20 pages"):
        list(api.pages("/api/v1/pods", "list pods"))
    api.close()
    assert len(cluster.asked) == 20


@pytest.mark.parametrize("token", [7, ["x"], {"a": 1}])
def test_a_token_that_is_none_does_not_pass_for_the_end(
    cluster: Cluster, environment: dict[str, str], token: Any
) -> None:
    answer(cluster, "/api/v1/pods", listing([], token))
    assert "does not say how it continues" in messages(observe(environment))[0]


def test_an_expired_list_is_begun_again_once(cluster: Cluster, environment: dict[str, str]) -> None:
    first, second = running("reg.example/a:1"), running("reg.example/b:1")
    second["metadata"]["name"] = "q"
    turns = iter([listing([first], "x"), None, listing([first], "y"), listing([second])])

    def turn(handler: Handler, asked: Asked) -> None:
        body = next(turns)
        handler.say(200 if body else 410, body or status(410, "The provided continue parameter is too old"))

    cluster.answers["/api/v1/pods"] = turn
    found = observe(environment)
    assert problems(found) == []
    assert set(rows(found)) == {"p/c", "q/c"}


def test_a_list_that_always_expires_is_a_problem(cluster: Cluster, environment: dict[str, str]) -> None:
    def turn(handler: Handler, asked: Asked) -> None:
        if "continue" in asked.query:
            handler.say(410, status(410, "too old"))
        else:
            handler.say(200, listing([running("reg.example/a:1")], "x"))

    cluster.answers["/api/v1/pods"] = turn
    found = observe(environment)
    assert len(rows(found)) == 1
    assert "HTTP 410: too old" in messages(found)[0]
    assert cluster.paths().count("/api/v1/pods") == 4


def test_too_much_is_not_read(cluster: Cluster, environment: dict[str, str]) -> None:
    answer(cluster, "/api/v1/pods", b" " * 100_000)
    access = find_access(environment=environment)
    api = KubeAPI(access, Credentials(access.user, access.cluster), largest_page=50_000)
    with pytest.raises(TooLarge, match="longer than 50000 bytes"):
        api.get("/api/v1/pods", "list pods")
    api.close()


def hang(handler: Handler, asked: Asked) -> None:
    time.sleep(6)


def drip(handler: Handler, asked: Asked) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while True:
        handler.wfile.write(b"1\r\n \r\n")
        time.sleep(0.05)


def drip_headers(handler: Handler, asked: Asked) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        handler.wfile.write(b"y")
        time.sleep(0.05)


@pytest.mark.long
@pytest.mark.parametrize("ill", [hang, drip, drip_headers])
def test_an_answer_has_its_time(cluster: Cluster, environment: dict[str, str], ill: Any) -> None:
    cluster.fill()
    cluster.answers["/api/v1/pods"] = ill
    found = observe(environment, timeout=2.0)
    assert messages(found) == [f"{cluster.url} did not answer within 2 s"]
    assert "cronjob/backup/dump" in rows(found)


def test_a_server_that_hangs_altogether_is_asked_twice(cluster: Cluster, environment: dict[str, str]) -> None:
    for path in ("/api/v1/nodes", "/api/v1/pods", *LISTS.values()):
        cluster.answers[path] = hang
    found = observe(environment, timeout=0.3)
    assert len(problems(found)) == 1
    assert cluster.paths() == ["/api/v1/nodes", "/api/v1/pods"]


@pytest.mark.long
def test_all_of_it_has_its_time(cluster: Cluster, environment: dict[str, str]) -> None:
    def more(handler: Handler, asked: Asked) -> None:
        time.sleep(0.1)
        handler.say(200, listing([], str(int(asked.query.get("continue", "0")) + 1)))

    cluster.answers["/api/v1/pods"] = more
    found = observe(environment, deadline=1.5)  # of pages without an end
    assert len(problems(found)) == 1


def test_nothing_listens(tmp_path: Path) -> None:
    found = observe(kubeconfig(tmp_path / "config", {"server": "https://127.0.0.1:1"}))
    assert "nothing listens there" in messages(found)[-1]


def test_a_redirect_is_not_followed(cluster: Cluster, environment: dict[str, str]) -> None:
    cluster.fill()
    answer(cluster, "/api/v1/pods", b"", 302, Location="/api/v1/nodes")
    assert messages(observe(environment)) == [f"{cluster.url}/api/v1/pods: HTTP 302"]


def test_a_busy_server_is_asked_again(cluster: Cluster, environment: dict[str, str]) -> None:
    cluster.fill()

    def busy(handler: Handler, asked: Asked) -> None:
        del cluster.answers["/api/v1/pods"]
        handler.say(429, status(429, "too many requests"), Retry_After="0")

    cluster.answers["/api/v1/pods"] = busy
    assert problems(observe(environment)) == []


def test_names_that_a_terminal_or_a_browser_would_obey(cluster: Cluster, environment: dict[str, str]) -> None:
    evil = "\x1b[2J<script>alert(1)</script>\u202e\ud800"
    pod = running("reg.example/app:1", evil)
    pod["metadata"] = {"name": evil, "namespace": evil}
    pod["spec"]["nodeName"] = evil
    answer(cluster, "/api/v1/pods", listing([pod]))
    [row] = rows(observe(environment)).values()
    for value in (row.name, row.namespace, row.host, *row.remarks):
        value.encode()
        assert "\x1b" not in printable(value)
    assert row.image.claims == ()
    answer(cluster, "/api/v1/pods", status(403, evil), 403)
    assert "\x1b" not in printable(messages(observe(environment))[0])


def test_wrong_types_are_problems_beside_rows(cluster: Cluster, environment: dict[str, str]) -> None:
    answer(cluster, "/api/v1/pods", listing([3, {"metadata": {"name": 1}}, running("reg.example/app:1")]))
    answer(cluster, "/api/v1/nodes", listing([None, {"metadata": 3}]))
    answer(cluster, LISTS["cronjobs"], listing(["x"]))
    found = observe(environment)
    assert len(rows(found)) == 1
    assert len(problems(found)) == 3


# -- how it is named ----------------------------------------------------------------------------


def test_how_the_source_is_written() -> None:
    assert Where.parse("") == Where()
    assert Where.parse("arn:aws:eks:eu-1:1:cluster/x") == Where("arn:aws:eks:eu-1:1:cluster/x")
    assert Where.parse("a%3Fb?namespace=x,y&namespace=z") == Where("a?b", ("x", "y", "z"))
    assert Where.parse("?selector=app%3Dx%2Ctier%21%3Dy") == Where(selector="app=x,tier!=y")
    source = parse_source("kubernetes:prod?namespace=a")
    assert isinstance(source, KubernetesSource)
    assert source.name == "kubernetes:prod?namespace=a"


@pytest.mark.parametrize("where", ["?x=1", "?namespace=../x", "?namespace=A", "?selector=a&selector=b"])
def test_what_cannot_be_a_source(where: str) -> None:
    with pytest.raises(InvalidConfiguration):
        parse_source(f"kubernetes:{where}")


def test_a_context_that_is_not_there(environment: dict[str, str]) -> None:
    [problem] = problems(observe(environment, "prod"))
    assert "context 'prod' is not there" in problem.message
    assert problem.hint == "there are 'main'"


def test_the_api_says_what_it_lacks(cluster: Cluster, environment: dict[str, str]) -> None:
    access = find_access(environment=environment)
    api = KubeAPI(access, Credentials(access.user, access.cluster))
    answer(cluster, "/x", listing([], None))
    assert list(api.pages("/x", "list x")) == [[]]
    answer(cluster, "/x", b"nonsense", 500)
    with pytest.raises(DigestryError, match="HTTP 500"):
        api.get("/x", "list x")
    answer(cluster, "/x", b"nonsense")
    with pytest.raises(ProtocolViolation, match="not JSON"):
        api.get("/x", "list x")
    api.close()
