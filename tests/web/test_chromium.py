"""The pages in a real Chromium: axe's rules in both themes, the keyboard, the script, and cookies."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, sync_playwright

from digestry.model.digest import Digest
from tests.peers.npm import place
from tests.registry.access.support import PASSWORDS
from tests.registry.test_fleet import image as report_image
from tests.registry.test_fleet import post, report, started
from tests.support import RegistryServer, lacking, program, running_registry, wait_until
from tests.web.images import attach, image, openvex, push_index
from tests.web.test_hostile_fields import EVIL

pytestmark = pytest.mark.peer("chromium")

_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = program("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def axe() -> str:
    file = place("axe") / "axe-core" / "axe.min.js"
    if not file.exists():
        lacking("axe", "it was not installed: run tests/peers/npm.py")
    return file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def paths() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def server(paths: dict[str, str]) -> Iterator[RegistryServer]:
    with running_registry() as server:
        first = push_index(server, "team/app", "1.5", "one")
        second = push_index(server, "team/app", "1.5", "two")
        statement = {
            "vulnerability": {"name": "CVE-2026-1", "aliases": ["GHSA-abcd-1234-efgh", EVIL]},
            "status": "affected",
            "products": [{"@id": f"pkg:oci/app@{quote(str(second), safe='')}"}],
            "action_statement": EVIL,
        }
        attach(server, "team/app", second, openvex(statement))
        layer = Digest.of(b"the base")
        server.push_manifest("library/base", "1", image(server, "library/base", "base"))
        attach(server, "library/base", layer, openvex({**statement, "products": [{"@id": "pkg:oci/base"}]}))
        steps = [{"created_by": EVIL}, {"created_by": EVIL}]
        evil = server.push_manifest(
            "team/app", "evil", image(server, "team/app", "x", history=steps, annotations={EVIL: EVIL})
        )
        _report_containers(server, first, second)
        paths |= {
            "fleet": "/fleet",
            "vulnerability": "/vulnerability?id=CVE-2026-1",
            "restore": f"/restore/team/app:1.5?to={first}",
            "repositories": "/",
            "repository": "/r/team/app",
            "tag": "/r/team/app:1.5",
            "changes": f"/changes/team/app?old={first}&new={second}&tag=1.5",
            "index": f"/r/team/app@{second}",
            "image": f"/r/team/app@{evil}",
            "layer": f"/r/team/app@{layer}",
            "search": "/search?q=1.5",
            "vulnerabilities": "/search?q=CVE-2026-1",
            "nothing found": "/search?q=nothing-like-it",
            "problem": "/no-such-page",
        }
        yield server


def _report_containers(server: RegistryServer, old: Digest, affected: Digest) -> None:
    """Report containers of both images, in a place that is silent soon, and return once they are judged."""
    images = {
        "old": report_image(f"{server.host}/team/app:1.5", old, "index"),
        "affected": report_image(f"{server.host}/team/app:1.5", affected, "index"),
    }
    runs = [
        started("c1", "old", name="web", workload="deployment/web", namespace="production"),
        started("c2", "affected", name="w" * 200, node="node-1"),
        started("c3", "affected", name=EVIL),
    ]
    assert post(server, report("host-1", *runs, images=images, interval=1)).status == 200
    wait_until(
        lambda: (
            b"ran in places that are silent" in server.request("GET", "/vulnerability?id=CVE-2026-1").body
        ),
        what="a silent place with affected containers",
        log=server.log,
    )


class Told:
    """What a page said on the console, its errors, and the dialogs that it opened."""

    def __init__(self, page: Page) -> None:
        self.found: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.found.append(str(error)))
        page.on("dialog", self._dialog)

    def _dialog(self, dialog: Dialog) -> None:
        self.found.append(dialog.message)
        dialog.dismiss()

    def _console(self, message: ConsoleMessage) -> None:
        if "status of 404" not in message.text:  # of the page that is not there
            self.found.append(message.text)


def url(server: RegistryServer, path: str, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{server.port}{path}"


@pytest.mark.long
@pytest.mark.parametrize(
    "looks",
    [
        "light 1280",
        pytest.param("light 320", marks=pytest.mark.long),
        pytest.param("dark 1280", marks=pytest.mark.long),
        "dark 320",
    ],
)
def test_no_page_breaks_a_rule_of_axe_or_runs_what_others_wrote(
    chromium: Browser, axe: str, server: RegistryServer, paths: dict[str, str], looks: str
) -> None:
    theme, _, width = looks.partition(" ")
    # Without the policy, which would keep axe itself from running; another test looks at that.
    context = chromium.new_context(
        viewport={"width": int(width), "height": 800},
        color_scheme="dark" if theme == "dark" else "light",
        bypass_csp=True,
    )
    page = context.new_page()
    told = Told(page)
    for name, path in paths.items():
        page.goto(url(server, path))
        check_looks(page, axe, f"{name}, {looks}", int(width))
    assert told.found == []
    context.close()


def check_looks(page: Page, axe: str, name: str, width: int) -> None:
    """Check that a page is no wider than the window, and breaks no rule of axe."""
    over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert over <= 0, f"{name} is wider than {width} px"
    page.evaluate(axe)
    result = page.evaluate("rules => axe.run(document, {runOnly: rules})", _RULES)
    broken = {rule["id"]: [node["html"][:200] for node in rule["nodes"]] for rule in result["violations"]}
    assert not broken, name


@pytest.mark.long
def test_the_page_of_a_tag_breaks_no_rule_where_its_lines_wrap(
    chromium: Browser, axe: str, server: RegistryServer, paths: dict[str, str]
) -> None:
    context = chromium.new_context(bypass_csp=True)
    page = context.new_page()
    page.goto(url(server, paths["tag"]))
    for width in range(560, 1300, 60):
        page.set_viewport_size({"width": width, "height": 800})
        check_looks(page, axe, f"{width} px", width)
    context.close()


@pytest.mark.long
@pytest.mark.parametrize("looks", ["light 1280", "dark 320"])
def test_no_page_without_content_or_rights_breaks_a_rule_of_axe(
    chromium: Browser, axe: str, guarded_server: RegistryServer, looks: str
) -> None:
    theme, _, width = looks.partition(" ")
    context = chromium.new_context(
        viewport={"width": int(width), "height": 800},
        color_scheme="dark" if theme == "dark" else "light",
        bypass_csp=True,
    )
    page = context.new_page()

    def visit(server: RegistryServer, path: str) -> None:
        page.goto(url(server, path))
        check_looks(page, axe, f"{path}, {looks}", int(width))

    with running_registry() as empty:
        for path in ("/", "/fleet", "/search", "/vulnerability?id=CVE-1", "/vulnerability"):
            visit(empty, path)
    visit(guarded_server, "/sign-in")
    page.get_by_label("Name").fill("alice")
    page.get_by_label("Password or token").fill("wrong")
    page.get_by_role("button", name="Sign in").last.click()
    page.wait_for_selector("[role=alert]")
    check_looks(page, axe, f"a wrong password, {looks}", int(width))
    context.clear_cookies()
    visit(guarded_server, "/r/secret/x")  # leads to the sign-in
    page.get_by_label("Name").fill("alice")
    page.get_by_label("Password or token").fill(PASSWORDS["alice"])
    page.get_by_role("button", name="Sign in").last.click()
    page.wait_for_selector(".who")
    for path in ("/", "/fleet", "/r/secret/x", "/restore/public/base:1", "/vulnerability?id=CVE-1"):
        visit(guarded_server, path)
    context.close()


@pytest.mark.long
def test_the_policy_lets_the_pages_run_without_a_complaint(
    chromium: Browser, server: RegistryServer, paths: dict[str, str]
) -> None:
    context = chromium.new_context()
    page = context.new_page()
    told = Told(page)
    for path in paths.values():
        page.goto(url(server, path))
        assert "scripted" in (page.locator("html").get_attribute("class") or "")
    assert told.found == []
    context.close()


@pytest.mark.long
def test_a_button_copies_a_digest(chromium: Browser, server: RegistryServer, paths: dict[str, str]) -> None:
    context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(url(server, paths["repository"]))
    button = page.locator("[data-copy]").first
    button.click()
    page.wait_for_selector(".copy.copied")
    assert page.evaluate("navigator.clipboard.readText()") == button.get_attribute("data-copy")
    assert page.locator("#said").inner_text() == "Copied."
    context.close()


@pytest.mark.long
def test_a_list_is_filtered_while_one_types(chromium: Browser, server: RegistryServer) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(url(server, "/r/team/app"))
    page.locator("#filter").press_sequentially("evi")
    page.wait_for_url("**?filter=evi&order=time")  # it follows the answer to the last key
    assert page.locator("#list tbody tr").count() == 1
    assert page.locator("#filter").input_value() == "evi"
    assert page.evaluate("document.activeElement.id") == "filter"
    context.close()


@pytest.mark.long
def test_the_keyboard_reaches_the_content_and_the_search(chromium: Browser, server: RegistryServer) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(url(server, "/"))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.wait_for_selector("#content:focus")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "find"
    page.keyboard.type("golf/track")
    assert page.locator("#find").input_value() == "golf/track"
    context.close()


@pytest.mark.long
@pytest.mark.parametrize("scripted", [True, False])
def test_the_theme_changes_and_stays(chromium: Browser, server: RegistryServer, scripted: bool) -> None:
    context = chromium.new_context(java_script_enabled=scripted, color_scheme="light")
    page = context.new_page()
    page.goto(url(server, "/"))
    light = _background(page)
    page.locator(".theme button").click()
    page.wait_for_selector("html[data-theme=dark]")
    page.goto(url(server, "/r/team/app"))
    assert page.locator("html").get_attribute("data-theme") == "dark"
    if scripted:
        assert _background(page) != light
    context.close()


def _background(page: Page) -> str | None:
    try:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    except Exception:  # noqa: BLE001 - without scripts nothing can be evaluated
        return None


def _signed_in(context: BrowserContext, server: RegistryServer, host: str) -> Page:
    page = context.new_page()
    page.goto(url(server, "/sign-in", host))
    page.get_by_label("Name").fill("alice")
    page.get_by_label("Password or token").fill(PASSWORDS["alice"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(url(server, "/", host))
    return page


@pytest.mark.long
def test_a_link_on_another_site_leads_to_the_page_as_its_user_sees_it(
    chromium: Browser, guarded_server: RegistryServer, tmp_path: Path
) -> None:
    context = chromium.new_context()
    page = _signed_in(context, guarded_server, "localhost")
    assert "team/app" in page.content()

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            way = url(guarded_server, "/r/team/app", "localhost")
            body = f'<a id="way" href="{way}">x</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=other.serve_forever, daemon=True)
    thread.start()
    try:
        page.goto(f"http://127.0.0.1:{other.server_address[1]}/")
        page.locator("#way").click()
        page.wait_for_selector("h1:has-text('team/app')")
        assert "alice" in page.locator(".who").inner_text()
    finally:
        other.shutdown()
        other.server_close()
        thread.join()
        context.close()


@pytest.mark.long
@pytest.mark.parametrize("width", [320, 1280])
def test_long_names_do_not_make_a_page_wider_than_the_window(
    chromium: Browser, server: RegistryServer, width: int
) -> None:
    name, tag = "/".join(["n" * 60] * 3), "t" * 128
    digest = server.push_manifest(name, tag, image(server, name, "long"))
    page = chromium.new_context(viewport={"width": width, "height": 800}).new_page()
    for path in (f"/r/{name}", f"/r/{name}:{tag}", f"/r/{name}@{digest}", f"/search?q={digest.encoded[:12]}"):
        page.goto(url(server, path))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.context.close()
