"""The admission file: what is read from it, and the errors of files that are wrong."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from digestry.admission.configuration import AdmissionConfiguration, parse
from digestry.admission.policy_document import PolicyDocument
from digestry.admission.policy_text import keys_of
from digestry.admission.selectors import parse_selector
from digestry.errors import InvalidConfiguration

HEAD = 'registries = ["r.example"]\n'


def read(text: str, name: str = "admission.toml") -> AdmissionConfiguration:
    return parse(text.encode(), Path(name))


# (text after the first line, the error after the file's name)
WRONG = [
    ('mode = "enforced"', "line 2: mode: 'enforced' is none of enforce, audit"),
    ('[default]\nmovd = "deny"', "line 3: unknown key 'movd' in default. Did you mean moved?"),
    ('[default]\nmoved = "refuse"', "line 3: moved: 'refuse' is none of allow, warn, deny"),
    ('[default]\nmoved-within = "soon"', "line 3: moved-within: 'soon' is not a length of time"),
    ("[default]\nmoved-within = 7", "line 3: moved-within must be a string, not a whole number"),
    ('[[rule]]\nname = "a"\n[[rule]]\nname = "b"\nbehnd = "deny"', "line 6: unknown key 'behnd' in rule"),
    ('[[rule]]\nmoved = "deny"', "line 2: the rule has no name"),
    ('[[rule]]\nname = "a"\n[[rule]]\nname = "a"', "line 5: another rule has the name 'a'"),
    ('[[rule]]\nname = "a"\n[[rule]]\nname = "b"', "line 2: the rule 'a' is about every pod"),
    ('[[rule]]\nname = "a"\n[rule.match]\nlabels = "a=b=c"', "line 5: labels: 'a=b=c' is not a requirement"),
    ('[[rule]]\nname = "a"\nmatch = { namespaces = ["a b"] }', "line 4: the pattern 'a b' matches nothing"),
    ('[[exempt]]\nuntil = 2027-01-01\nimages = ["x"]', "line 2: the key reason is missing in exempt"),
    ('[[exempt]]\nreason = "x"\nimages = ["x"]', "line 2: the key until is missing in exempt"),
    ('[[exempt]]\nreason = "x"\nuntil = "soon"\nimages = ["x"]', "line 4: until: 'soon' is not a date"),
    ('[[exempt]]\nreason = "x"\nuntil = 2027-01-01', "line 2: the exemption is about everything"),
    ('[[exempt]]\nreason = "x"\nuntil = 2027-01-01\ndigests = ["sha256:1"]', "line 5: "),
    ('[[workload]]\nkind = "X"\npaths = ["a..b"]', "line 4: 'a..b' is not the path of a pod template"),
    ('[answers]\nwait = "1h"', "line 3: wait must be from 0.01 to 25 seconds"),
    ('[answers]\nfresh = "1s"', "line 3: fresh is less than refresh"),
    ('[server]\nlisten = "somewhere"', "line 3: 'somewhere' is not an address"),
    ('[certificate]\ncertificate = "x.pem"', "line 2: certificate and key go together"),
    ('[certificate]\nsecret = "a/b"', "line 2: names are missing"),
    ('[certificate]\nsecret = "a/b"\ndirectory = "x"\nnames = ["x"]', "line 2: the certificate is in files"),
]


@pytest.mark.parametrize(("text", "error"), WRONG)
def test_errors_name_the_line(text: str, error: str) -> None:
    with pytest.raises(InvalidConfiguration) as found:
        read(HEAD + text)
    assert found.value.message.replace('"', "'").startswith(f"admission.toml, {error}"), found.value.message


def test_yaml_has_the_same_keys_and_its_own_lines() -> None:
    text = "registries: [r.example]\nrule:\n  - name: a\n    match: {namespaces: [prod]}\n    moved: deny\n"
    same = HEAD + '[[rule]]\nname = "a"\nmoved = "deny"\nmatch = { namespaces = ["prod"] }\n'
    assert read(text, "a.yaml") == read(same)
    with pytest.raises(InvalidConfiguration, match=r"a\.yaml, line 5: unknown key 'moves' in rule"):
        read(text.replace("moved", "moves"), "a.yaml")
    with pytest.raises(InvalidConfiguration, match=r"a\.yaml, line 5: the key 'name' is there twice"):
        read(text.replace("    moved: deny", "    name: b"), "a.yaml")
    with pytest.raises(InvalidConfiguration, match="not valid YAML"):
        read("registries: [", "a.yaml")


def test_a_file_without_registries_or_that_is_none() -> None:
    with pytest.raises(InvalidConfiguration, match="the key registries is missing"):
        read("")
    with pytest.raises(InvalidConfiguration, match="not valid TOML"):
        read("registries =")
    with pytest.raises(InvalidConfiguration, match="name at least one registry"):
        read("registries = []")
    with pytest.raises(InvalidConfiguration, match="not UTF-8"):
        parse(b"\xff", Path("admission.toml"))


def test_what_a_rule_does_not_say_is_as_in_the_default() -> None:
    found = read(
        HEAD + '[default]\nmoved = "deny"\nmoved-within = "3d"\n[[rule]]\nname = "a"\naway = "deny"\n'
    )
    (rule,) = found.policy.rules
    assert (rule.actions["moved"], rule.moved_within) == ("deny", 3 * 86400)
    assert (rule.actions["away"], found.policy.default.actions["away"]) == ("deny", "warn")
    assert rule.actions["affected"] == "deny"


def test_the_page_has_every_key_and_condition() -> None:
    page = (Path(__file__).parents[2] / "docs" / "admission.md").read_text()
    tables = [(), ("default",), ("rule",), ("rule", "match"), ("exempt",), ("workload",), ("answers",)]
    tables += [("server",), ("certificate",)]
    for table in tables:
        for key in keys_of(table):
            assert f"`{key}`" in page or f"{key} =" in page or f"[{key}]" in page, (table, key)
    assert PolicyDocument.__struct_fields__


# (selector, labels, whether they match)
SELECTORS = [
    ("", {}, True),
    ("a=b", {"a": "b"}, True),
    ("a==b", {"a": "c"}, False),
    ("a!=b", {}, True),
    ("a!=b", {"a": "b"}, False),
    ("a", {"a": ""}, True),
    ("!a", {"a": ""}, False),
    ("a in (b, c),d", {"a": "c", "d": "x"}, True),
    ("a in (b, c),d", {"a": "c"}, False),
    ("a notin (b)", {}, True),
    ("x.io/a=b", {"x.io/a": "b"}, True),
]


@pytest.mark.parametrize(("text", "labels", "matches"), SELECTORS)
def test_selectors_are_those_of_kubectl(text: str, labels: dict[str, str], matches: bool) -> None:
    assert parse_selector(text).matches(labels) == matches


@pytest.mark.parametrize("text", ["=", "a=b c", "a in b", "a in (b", "a,,b", "-a", "a in (b!)"])
def test_what_is_no_selector(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        parse_selector(text)


@pytest.mark.parametrize(
    "until", ["9999-12-31", "9999-12-31T23:59:59Z", '"9999-12-31T23:59:59-05:00"', '"9999-12-31"']
)
def test_an_exemption_without_an_end_in_sight(until: str) -> None:
    text = f'registries = ["r.example"]\n[[exempt]]\nimages = ["a/**"]\nreason = "x"\nuntil = {until}\n'
    (one,) = parse(text.encode(), Path("admission.toml")).policy.exemptions
    assert one.until > datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)
    assert datetime.datetime.now(datetime.UTC) < one.until


def test_one_that_ended_before_time_began() -> None:
    text = 'registries = ["r.example"]\n[[exempt]]\nimages = ["a/**"]\nreason = "x"\n'
    text += 'until = "0001-01-01T00:00:01+05:00"\n'
    (one,) = parse(text.encode(), Path("admission.toml")).policy.exemptions
    assert one.until < datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
