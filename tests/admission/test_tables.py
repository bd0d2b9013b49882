"""Pods and policies as tables, with the answers that docs/admission.md gives, and what registries said."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest

from digestry.admission.configuration import parse
from digestry.admission.image_knowledge import ImageKnowledge
from digestry.admission.inquiry import not_a_name, parse_image
from digestry.admission.manifest_files import read_objects
from digestry.admission.shared_inquiries import unasked
from digestry.admission.tested_manifests import JudgedManifest, decide_manifests
from digestry.advisories.advisory import Advisory
from digestry.advisories.statements import Statement
from digestry.errors import InvalidReference
from digestry.model.digest import Digest
from tests.admission.support import pod, pod_spec, review

DIGEST: Final = Digest.of(b"an image")
AGO: Final = datetime.datetime.now(datetime.UTC)


def advisory(name: str, severity: str = "") -> Advisory:
    at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    statement = Statement(name, (), "affected", at, 1, "us", (), {}, severity=severity)
    return Advisory(statement, parse_image("r.example/x:1").repository_only(), DIGEST, DIGEST, "us")


def said(name: str, *, by_tag: bool = False, **more: Any) -> ImageKnowledge:
    """What is known of an image: by default one that is fine, and stood there for 40 days."""
    image = f"r.example/{name}:1" + ("" if by_tag else f"@{DIGEST}")
    known = ImageKnowledge(
        image,
        parse_image(image),
        AGO,
        digest=DIGEST,
        tag="current",
        assessment="not_affected",
        since=AGO - datetime.timedelta(days=40),
        proven=True,
    )
    return replace(known, **more)


KNOWN: Final = {
    "web": said("web"),
    "tag": said("web", by_tag=True),
    "new": said("new", since=AGO - datetime.timedelta(hours=3)),
    "mid": said("mid", since=AGO - datetime.timedelta(days=3)),
    "bad": said("bad", assessment="affected", affecting=(advisory("CVE-1", "high"),)),
    "low": said("low", assessment="affected", affecting=(advisory("CVE-2", "low"),)),
    "nosev": said("nosev", assessment="affected", affecting=(advisory("CVE-3"),)),
    "both": said(
        "both", assessment="affected", affecting=(advisory("CVE-1", "high"), advisory("CVE-2", "low"))
    ),
    "newbad": said(
        "newbad",
        assessment="affected",
        affecting=(advisory("CVE-1", "high"),),
        since=AGO - datetime.timedelta(hours=3),
    ),
    "none": said("none", assessment="not_assessed"),
    "gone": said(
        "gone", by_tag=True, digest=None, missing="it has no tag 1", assessment="unknown", since=None
    ),
    "forged": said("forged", tag="never", since=None),
    "lag": said("lag", behind="its upstream is away"),
    "quiet": said("quiet", away="no route", assessment="unknown", tag="unknown", since=None),
    "quietbad": said("quietbad", away="no route", affecting=(advisory("CVE-1", "high"),)),
    "dim": said("dim", assessment="unknown", assessment_reasons=("it failed",)),
    "ageless": said("ageless", since=None, age_unknown="it keeps no history"),
    "refuted": said("refuted", proven=False, proof_refused="another digest"),
    "unproven": said("unproven", proven=False, proof_unknown="its log is away"),
}
DIGEST_ONLY: Final = f"r.example/web@{DIGEST}"
OTHER: Final = "x.example/app:1"
OTHER_PINNED: Final = f"x.example/app:1@{DIGEST}"


def name_of(word: str) -> str:
    known = KNOWN.get(word)
    return word if known is None else known.image


def told(image: str) -> ImageKnowledge:
    for known in KNOWN.values():
        if known.image == image:
            return known
    if image == DIGEST_ONLY:
        return replace(KNOWN["web"], image=image, reference=parse_image(image), since=None)
    try:
        parse_image(image)
    except InvalidReference as error:
        return not_a_name(image, error, AGO)
    return unasked(image)


@dataclass(frozen=True)
class Row:
    """A policy, an object, and the answer: a word, and the conditions that are warned of or denied."""

    policy: str
    content: dict[str, Any] | str
    answer: str | None
    conditions: dict[str, str] = field(default_factory=dict)
    namespace: str = "shop"
    labels: dict[str, str] | None = field(default_factory=dict)


def workload(
    version: str, kind: str, *names: str, path: str = "spec.template", **spec: Any
) -> dict[str, Any]:
    """An object with a pod template."""
    content: Any = {"metadata": {}, "spec": pod_spec(*map(name_of, names), **spec)}
    for key in reversed(path.split(".")):
        content = {key: content}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "w"}, **content}


def with_part(part: str, *names: str) -> dict[str, Any]:
    containers = [{"name": f"x{place}", "image": name_of(name)} for place, name in enumerate(names)]
    made = pod(name_of("web"))
    made["spec"][part] = containers
    return made


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return review(after, old=before, namespace="shop")


def default(*lines: str) -> str:
    return "\n".join(["[default]", *lines])


PRODUCTION = '[[rule]]\nname = "production"\nmatch = { namespaces = ["prod-*"] }\nnot-pinned = "deny"\n'
BY_LABEL = '[[rule]]\nname = "env"\nmatch = { namespace-labels = "env=production" }\nnot-pinned = "deny"\n'
PROBES = '[[rule]]\nname = "probes"\nmatch = { labels = "app=probe" }\naffected = "allow"\n'
EXCEPT = PRODUCTION.replace("}\n", '}\nexcept = { labels = "app in (probe, canary)" }\n', 1)
LENIENT = '[[rule]]\nname = "lenient"\nmatch = { namespace-labels = "team=x" }\naffected = "warn"\n'


def exempt(*lines: str, until: str = "2999-01-01") -> str:
    return "\n".join(
        [default('not-pinned = "deny"'), "[[exempt]]", *lines, 'reason = "why"', f"until = {until}\n"]
    )


WORKLOAD = '[[workload]]\ngroup = "x.io"\nkind = "Thing"\npaths = ["spec.parts[].template"]\n'
THING = {
    "apiVersion": "x.io/v1",
    "kind": "Thing",
    "metadata": {"name": "t"},
    "spec": {"parts": [{"template": {"spec": pod_spec(name_of("bad"))}}]},
}

TABLE: dict[str, Row] = {
    # -- the defaults of the page's table --
    "an image that is fine": Row("", "web", "allow"),
    "a tag": Row("", "tag", "allow"),
    "a digest": Row("", DIGEST_ONLY, "allow"),
    "a tag of three hours": Row("", "new", "warn", {"moved": "warn"}),
    "a tag of three days": Row("", "mid", "allow"),
    "affected": Row("", "bad", "deny", {"affected": "deny"}),
    "not assessed": Row("", "none", "allow"),
    "missing": Row("", "gone", "warn", {"missing": "warn"}),
    "a digest that the tag never had": Row("", "forged", "deny", {"never-pointed": "deny"}),
    "a mirror that is behind": Row("", "lag", "warn", {"behind": "warn"}),
    "a registry that is away": Row("", "quiet", "warn", {"away": "warn"}),
    "a registry that is away and said no": Row("", "quietbad", "deny", {"away": "warn", "affected": "deny"}),
    "an assessment that is not known": Row("", "dim", "warn", {"unknown": "warn"}),
    "an age that is not known": Row("", "ageless", "warn", {"unknown": "warn"}),
    "a log that does not prove it": Row("", "refuted", "allow"),
    "another registry": Row("", OTHER, "warn", {"unknown-registry": "warn"}),
    "no name": Row("", "Not A Name", "warn", {"missing": "warn"}),
    "moved and affected": Row("", "newbad", "deny", {"affected": "deny", "moved": "warn"}),
    # -- what a policy changes --
    "not pinned is denied": Row(default('not-pinned = "deny"'), "tag", "deny", {"not-pinned": "deny"}),
    "pinned by a digest alone": Row(default('not-pinned = "deny"'), DIGEST_ONLY, "allow"),
    "an age that nobody wants": Row(default('moved = "allow"'), "ageless", "allow"),
    "an assessment that nobody wants": Row(default('affected = "allow"'), "dim", "allow"),
    "one that is wanted": Row(
        default('affected = "allow"', 'not-assessed = "warn"'), "dim", "warn", {"unknown": "warn"}
    ),
    "unknown is denied": Row(default('unknown = "deny"'), "dim", "deny", {"unknown": "deny"}),
    "unknown is allowed": Row(default('unknown = "allow"'), "dim", "allow"),
    "away is denied": Row(default('away = "deny"'), "quiet", "deny", {"away": "deny"}),
    "away is allowed": Row(default('away = "allow"'), "quiet", "allow"),
    "away is allowed and what was said is not": Row(
        default('away = "allow"'), "quietbad", "deny", {"affected": "deny"}
    ),
    "a proof is wanted and refused": Row(
        default('no-proof = "deny"'), "refuted", "deny", {"no-proof": "deny"}
    ),
    "a proof is wanted and there": Row(default('no-proof = "deny"'), "web", "allow"),
    "a proof is wanted and not known": Row(
        default('no-proof = "deny"'), "unproven", "warn", {"unknown": "warn"}
    ),
    "another registry is denied": Row(
        default('unknown-registry = "deny"'), OTHER_PINNED, "deny", {"unknown-registry": "deny"}
    ),
    "another registry's tag": Row(
        default('unknown-registry = "allow"', 'not-pinned = "deny"'), OTHER, "deny", {"not-pinned": "deny"}
    ),
    "another registry's digest": Row(default('unknown-registry = "allow"'), OTHER_PINNED, "allow"),
    "no name is denied": Row(default('missing = "deny"'), "Not A Name", "deny", {"missing": "deny"}),
    "less severe": Row(default('affected-from = "high"'), "low", "allow"),
    "as severe": Row(default('affected-from = "high"'), "bad", "deny", {"affected": "deny"}),
    "severe nobody knows how": Row(default('affected-from = "high"'), "nosev", "deny", {"affected": "deny"}),
    "not severe enough": Row(default('affected-from = "critical"'), "both", "allow"),
    "one of two is severe": Row(default('affected-from = "medium"'), "both", "deny", {"affected": "deny"}),
    "a week": Row(default('moved-within = "7d"'), "mid", "warn", {"moved": "warn"}),
    "an hour": Row(default('moved-within = "1h"'), "new", "allow"),
    "a move is denied": Row(default('moved = "deny"'), "new", "deny", {"moved": "deny"}),
    "nobody has looked": Row(default('not-assessed = "deny"'), "none", "deny", {"not-assessed": "deny"}),
    "behind is denied": Row(default('behind = "deny"'), "lag", "deny", {"behind": "deny"}),
    "the mode does not matter to a test": Row('mode = "audit"\n', "bad", "deny", {"affected": "deny"}),
    # -- which rule --
    "a rule's namespace": Row(PRODUCTION, "tag", "deny", {"not-pinned": "deny"}, namespace="prod-a"),
    "no rule's namespace": Row(PRODUCTION, "tag", "allow"),
    "a rule is as the default in the rest": Row(
        default('moved = "deny"') + "\n" + PRODUCTION, "new", "deny", {"moved": "deny"}, namespace="prod-a"
    ),
    "the first rule decides": Row(
        '[[rule]]\nname = "all"\nmatch = { namespaces = ["p*"] }\naffected = "warn"\n' + PRODUCTION,
        "bad",
        "warn",
        {"affected": "warn"},
        namespace="prod-a",
    ),
    "a pod's labels": Row(PROBES, pod(name_of("bad"), labels={"app": "probe"}), "allow"),
    "another pod's labels": Row(
        PROBES, pod(name_of("bad"), labels={"app": "web"}), "deny", {"affected": "deny"}
    ),
    "a rule's exception": Row(
        EXCEPT, pod(name_of("tag"), labels={"app": "canary"}), "allow", namespace="prod-a"
    ),
    "no exception": Row(
        EXCEPT, pod(name_of("tag"), labels={"app": "web"}), "deny", {"not-pinned": "deny"}, namespace="prod-a"
    ),
    "a namespace's labels": Row(
        BY_LABEL, "tag", "deny", {"not-pinned": "deny"}, labels={"env": "production"}
    ),
    "other labels": Row(BY_LABEL, "tag", "allow", labels={"env": "test"}),
    "labels that are not known": Row(BY_LABEL, "tag", "deny", {"not-pinned": "deny"}, labels=None),
    "labels of a lenient rule that are not known": Row(
        LENIENT, "bad", "deny", {"affected": "deny"}, labels=None
    ),
    "labels of a lenient rule": Row(LENIENT, "bad", "warn", {"affected": "warn"}, labels={"team": "x"}),
    # -- exemptions --
    "an exempted image": Row(
        exempt('images = ["r.example/web"]', 'conditions = ["not-pinned"]'), "tag", "allow"
    ),
    "an exempted pattern": Row(
        exempt('images = ["r.example/**"]', 'conditions = ["not-pinned"]'), "tag", "allow"
    ),
    "an exemption of another image": Row(
        exempt('images = ["r.example/other"]', 'conditions = ["not-pinned"]'),
        "tag",
        "deny",
        {"not-pinned": "deny"},
    ),
    "an exemption of another condition": Row(
        exempt('images = ["r.example/web"]', 'conditions = ["affected"]'),
        "tag",
        "deny",
        {"not-pinned": "deny"},
    ),
    "an exemption that has ended": Row(
        exempt('images = ["r.example/web"]', 'conditions = ["not-pinned"]', until="2020-01-01"),
        "tag",
        "deny",
        {"not-pinned": "deny"},
    ),
    "an exempted namespace": Row(
        exempt('namespaces = ["legacy"]', 'images = ["**"]', 'conditions = ["not-pinned"]'),
        "tag",
        "allow",
        namespace="legacy",
    ),
    "another namespace": Row(
        exempt('namespaces = ["legacy"]', 'images = ["**"]', 'conditions = ["not-pinned"]'),
        "tag",
        "deny",
        {"not-pinned": "deny"},
    ),
    "an exempted digest": Row(exempt(f'digests = ["{DIGEST}"]', 'conditions = ["affected"]'), "bad", "allow"),
    "an exempted vulnerability": Row(exempt('vulnerabilities = ["CVE-1"]'), "bad", "allow"),
    "another vulnerability": Row(exempt('vulnerabilities = ["CVE-9"]'), "bad", "deny", {"affected": "deny"}),
    "one of two vulnerabilities": Row(
        exempt('vulnerabilities = ["CVE-1"]'), "both", "deny", {"affected": "deny"}
    ),
    # -- what is looked at --
    "a Deployment": Row("", workload("apps/v1", "Deployment", "web", "bad"), "deny", {"affected": "deny"}),
    "a CronJob": Row(
        "",
        workload("batch/v1", "CronJob", "bad", path="spec.jobTemplate.spec.template"),
        "deny",
        {"affected": "deny"},
    ),
    "a PodTemplate": Row(
        "", workload("v1", "PodTemplate", "bad", path="template"), "deny", {"affected": "deny"}
    ),
    "a Rollout": Row("", workload("argoproj.io/v1alpha1", "Rollout", "bad"), "deny", {"affected": "deny"}),
    "a Service of Knative": Row(
        "", workload("serving.knative.dev/v1", "Service", "bad"), "deny", {"affected": "deny"}
    ),
    "a Service without pods": Row("", {"apiVersion": "v1", "kind": "Service", "spec": {}}, None),
    "an init container": Row("", with_part("initContainers", "bad"), "deny", {"affected": "deny"}),
    "an ephemeral container": Row("", with_part("ephemeralContainers", "bad"), "deny", {"affected": "deny"}),
    "an image volume": Row(
        "",
        pod(name_of("web"), volumes=[{"name": "v", "image": {"reference": name_of("bad")}}]),
        "deny",
        {"affected": "deny"},
    ),
    "a volume without an image": Row(
        "", pod(name_of("web"), volumes=[{"name": "v", "emptyDir": {}}]), "allow"
    ),
    "another kind with its paths": Row(WORKLOAD, THING, "deny", {"affected": "deny"}),
    "another kind": Row("", THING, None),
    "another kind without a template": Row(WORKLOAD, {**THING, "spec": {"parts": []}}, "allow"),
    "containers that are no list": Row("", pod() | {"spec": {"containers": {"name": "c"}}}, "deny"),
    "an image that is a number": Row(
        "", pod() | {"spec": {"containers": [{"name": "c", "image": 1}]}}, "deny"
    ),
    "500 images": Row(
        default('unknown-registry = "allow"'),
        pod(*(f"x.example/a{number}" for number in range(500))),
        "allow",
    ),
    "501 images": Row(
        default('unknown-registry = "allow"'), pod(*(f"x.example/a{number}" for number in range(501))), "deny"
    ),
    "the node's own image": Row(
        "",
        pod()
        | {"spec": {"containers": [{"name": "c", "image": name_of("tag"), "imagePullPolicy": "Never"}]}},
        "warn",
        {"unknown": "warn"},
    ),
    # -- changes --
    "a change of something else": Row(
        "", changed(pod(name_of("bad")), pod(name_of("bad"), name="q")), "allow"
    ),
    "a change to a bad image": Row(
        "", changed(pod(name_of("web")), pod(name_of("bad"))), "deny", {"affected": "deny"}
    ),
    "a change that is judged whole": Row(
        'unchanged = "judge"\n',
        changed(pod(name_of("bad")), pod(name_of("bad"), name="q")),
        "deny",
        {"affected": "deny"},
    ),
    "a change out of a lenient rule": Row(
        PROBES,
        changed(pod(name_of("bad"), labels={"app": "probe"}), pod(name_of("bad"), labels={"app": "web"})),
        "deny",
        {"affected": "deny"},
    ),
    "a debugger beside a bad image": Row(
        "",
        changed(
            pod(name_of("bad")),
            pod(name_of("bad"), ephemeralContainers=[{"name": "d", "image": name_of("web")}]),
        ),
        "allow",
    ),
    "a bad debugger": Row(
        "",
        changed(
            pod(name_of("web")),
            pod(name_of("web"), ephemeralContainers=[{"name": "d", "image": name_of("bad")}]),
        ),
        "deny",
        {"affected": "deny"},
    ),
    "a deletion": Row("", review(pod(name_of("bad")), operation="DELETE", namespace="shop"), "allow"),
}


def outcome(row: Row) -> JudgedManifest:
    policy = parse(f'registries = ["r.example"]\n{row.policy}'.encode(), Path("admission.toml")).policy
    content = pod(name_of(row.content)) if isinstance(row.content, str) else row.content
    (one,) = decide_manifests(
        list(read_objects(json.dumps(content).encode(), "m.json")),
        policy,
        lambda images, _: {image: told(image) for image in images},
        row.namespace,
        row.labels,
    )
    return one


@pytest.mark.parametrize("name", TABLE)
def test_a_row_of_the_table(name: str) -> None:
    row = TABLE[name]
    one = outcome(row)
    found = {each.condition: each.action for each in one.findings if each.action != "allow"}
    assert found == row.conditions, [each.text for each in one.findings]
    decision = one.decision
    if decision is None:
        assert row.answer is None
        return
    word = "deny" if decision.would_deny else "warn" if decision.having("warn") else "allow"
    assert word == row.answer


def test_what_an_exemption_lets_through_has_its_reason() -> None:
    one = outcome(TABLE["an exempted image"])
    assert [(each.condition, each.exempted) for each in one.findings if each.exempted] == [
        ("not-pinned", "exempted until 2999-01-02T00:00:00.000000Z: why")
    ]
    (finding,) = outcome(TABLE["an exemption that has ended"]).findings
    assert "an exemption ended at 2020-01-02" in finding.advice


def test_labels_that_are_not_known_are_said() -> None:
    (note,) = outcome(TABLE["labels that are not known"]).notes
    assert "not known" in note
    assert "the strictest counts" in note


def test_what_was_not_looked_at_is_said() -> None:
    assert outcome(TABLE["another kind"]).overlooked
    assert outcome(TABLE["another kind without a template"]).overlooked
    assert not outcome(TABLE["a Service without pods"]).overlooked
