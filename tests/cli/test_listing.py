"""Listings: columns, filters, orders and templates, which all commands that list have in common."""

from __future__ import annotations

import json
from typing import Any

import pytest

from digestry.cli.listing import Column, Listing, View
from digestry.errors import InvalidConfiguration

LISTING = Listing(
    "things",
    "Things.",
    (
        Column("name", "text", "A name."),
        Column("size", "size", "Bytes.", nullable=True),
        Column("image_id", "id", "An ID.", heading="IMAGE ID"),
        Column("digest", "digest", "A digest.", shown=False),
        Column("platforms", "texts", "Some."),
        Column("still", "flag", "Whether."),
    ),
)
ROWS: list[dict[str, Any]] = [
    {
        "name": name,
        "size": size,
        "image_id": f"sha256:{digit * 64}",
        "digest": f"sha256:{digit * 64}",
        "platforms": platforms,
        "still": size is not None,
    }
    for name, size, digit, platforms in [
        ("b", 2_000_000, "1", ["linux/amd64"]),
        ("a", 300, "2", []),
        ("c\x1b[31m", None, "3", ["linux/arm64", "linux/amd64"]),
    ]
]


def view(format_: str = "table", **options: Any) -> View:
    options = {"columns": (), "sort": (), "filters": (), "no_trunc": False, **options}
    return View(LISTING, format_, **options)


def lines(capsys: pytest.CaptureFixture[str], chosen: View) -> list[str]:
    chosen.check()
    chosen.show(ROWS)
    return capsys.readouterr().out.splitlines()


def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, view()) == [
        "NAME        SIZE   IMAGE ID       PLATFORMS                  STILL",
        "b           2MB    111111111111   linux/amd64                yes",
        "a           300B   222222222222   -                          yes",
        "c\\x1b[31m   -      333333333333   linux/arm64, linux/amd64   no",
    ]
    assert lines(capsys, view(columns=("Name", "IMAGEID", "digest"), filters=("name=b",)))[1].split() == [
        "b",
        "1" * 12,
        f"sha256:{'1' * 12}",
    ]
    assert f"sha256:{'1' * 64}" in lines(capsys, view(no_trunc=True))[1]


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (("size",), "ab"),
        (("-size",), "ba"),
        (("still", "-name"), "ba"),
        (("-name",), "ba"),
        (("image_id",), "ba"),
    ],
)
def test_an_order(capsys: pytest.CaptureFixture[str], keys: tuple[str, ...], names: str) -> None:
    found = lines(capsys, view("{{.Name}}", sort=keys))
    assert "".join(name for name in found if name in {"a", "b"}) == names
    if keys[0].lstrip("-") == "size":
        assert found[-1].startswith("c")  # what is not known comes last, in any direction


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (("name=b",), "b"),
        (("name!=b",), "ac"),
        (("name=[ab]",), "ba"),
        (("size>1kB",), "b"),
        (("size<=300",), "a"),
        (("size<1MiB", "name=?"), "a"),
        (("platforms=*amd64",), "bc"),
        (("platforms=",), "a"),
        (("still=no",), "c"),
        (("still=true",), "ba"),
        (("digest=sha256:1*",), "b"),
        (("size=",), "c"),
    ],
)
def test_a_filter(capsys: pytest.CaptureFixture[str], filters: tuple[str, ...], names: str) -> None:
    assert [line[0] for line in lines(capsys, view("{{.Name}}", filters=filters))] == list(names)


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{{.Name}}:{{ .Size }}", "b:2MB"),
        ("{{.ImageID}}", f"sha256:{'1' * 64}"),
        ("{{json .Size}} {{json .Platforms}}", '2000000 ["linux/amd64"]'),
        ("{{.Name | upper}} {{upper .Name}} {{lower .Name}}", "B B b"),
        ('{{join .Platforms "+"}}{{len .Platforms}}', "linux/amd641"),
        (r"{{.Name}}\t{{.Still}}\\", "b\tyes\\"),
        ("plain {{.name}}", "plain b"),
    ],
)
def test_a_template(capsys: pytest.CaptureFixture[str], template: str, line: str) -> None:
    assert lines(capsys, view(template))[0] == line


def test_a_template_for_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, view(r"table {{.Name}}\t{{.Size}}", sort=("name",))) == [
        "NAME        SIZE",
        "a           300B",
        "b           2MB",
        "c\\x1b[31m",
    ]


def test_templates_escape_what_comes_from_outside(capsys: pytest.CaptureFixture[str]) -> None:
    for template in ("{{.Name}}", "{{json .}}", "{{.}}", "{{json .Name}}", "{{upper .Name}}"):
        found = lines(capsys, view(template))[2]
        assert found.isprintable()
    assert json.loads(lines(capsys, view("{{json .}}"))[2]) == ROWS[2]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads("\n".join(lines(capsys, view("json", sort=("name",))))) == [ROWS[1], ROWS[0], ROWS[2]]


@pytest.mark.parametrize(
    "options",
    [
        {"format_": "{{.Nmae}}"},
        {"format_": "{{.Name"},
        {"format_": "}}{{.Name}}"},
        {"format_": "{{}}"},
        {"format_": "{{range .}}"},
        {"format_": "{{.Name .Size}}"},
        {"format_": "{{upper .}}"},
        {"format_": "{{json json .}}"},
        {"format_": "{{.Name.Size}}"},
        {"format_": '{{printf "%s" .Name}}'},
        {"columns": ("nmae",)},
        {"sort": ("nmae",)},
        {"filters": ("nmae=1",)},
        {"filters": ("name",)},
        {"filters": ("size>many",)},
    ],
)
def test_what_cannot_be_is_said_before_any_work(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        view(**options).check()
    assert caught.value.hint


def test_a_wrong_column_has_a_proposal() -> None:
    with pytest.raises(InvalidConfiguration, match="Did you mean name"):
        view(columns=("nmae",)).check()
