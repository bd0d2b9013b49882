"""The list of repositories."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.registry.access.support import guarded, of
from tests.support import RegistryServer, running_registry


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with running_registry() as server:
        for number in range(103):
            server.push_blob(f"many/r{number:03}", b"x")
        server.push_image("team/app", "1", b"a layer")
        yield server


def page(server: RegistryServer, path: str, **headers: str) -> str:
    answer = server.request("GET", path, headers=headers)
    assert answer.status == 200
    return answer.body.decode()


@pytest.mark.long
def test_a_row_has_its_tags_its_size_and_its_last_change(server: RegistryServer) -> None:
    text = page(server, "/?filter=team")
    assert text.count('<tr role="row"><th role="rowheader"') == 1
    assert 'href="/r/team/app"' in text
    assert '<td role="cell" class="right" data-label="Tags">1</td>' in text
    assert "<time datetime=" in text


def test_pages_follow_by_name(server: RegistryServer) -> None:
    first = page(server, "/")
    assert "many/r099" in first
    assert "many/r100" not in first
    assert 'href="/?after=many/r099"' in first or 'href="/?after=many%2Fr099"' in first
    second = page(server, "/?after=many/r099")
    assert "many/r100" in second
    assert "team/app" in second
    assert "many/r099<" not in second
    assert "That was the last one" in page(server, "/?after=zzz")


def test_a_filter_is_a_part_of_the_name_and_no_pattern(server: RegistryServer) -> None:
    assert "many/r042" in page(server, "/?filter=R042")
    assert "team/app" not in page(server, "/?filter=m_ny")
    assert "team/app" not in page(server, "/?filter=%25")


@pytest.mark.long
def test_nobody_sees_the_name_of_what_they_may_not_read() -> None:
    with guarded() as server:
        for name in ("team/app", "public/base", "secret/x"):
            assert of(server, "carol").push_image(name, "1", name.encode()).status == 201
        text = page(server, "/")
        assert "public/base" in text
        assert "team/app" not in text
        assert "secret/x" not in text
        for path in ("/?filter=secret", "/?after=public/base"):
            assert "secret/x" not in page(server, path)
