"""Tables of images and policies: which conditions hold, and what the answer is."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from digestry.admission.configuration import parse
from digestry.admission.decision import Decision, Subject, decide, unchanged_images
from digestry.admission.inquiry import InquiryOptions, inquire
from digestry.admission.pod_templates import PodTemplate, kind_of, templates_of
from digestry.admission.policy import Policy
from digestry.admission.shared_inquiries import unasked
from digestry.errors import Unreachable
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.admission.support import pod
from tests.audit.fakes import FakeRegistries
from tests.inventory.fakes import START

HOST = "r.example"
NAME = f"{HOST}/team/app"
NOW = START + datetime.timedelta(days=30)


def policy(text: str = "") -> Policy:
    return parse(f'registries = ["{HOST}"]\n{text}'.encode(), Path("admission.toml")).policy


@dataclass
class World:
    """A registry with an image of each history."""

    registries: FakeRegistries = field(default_factory=FakeRegistries)

    def __post_init__(self) -> None:
        repository = self.registries.at(NAME)
        self.old = repository.image("old")
        self.new = repository.image("new")
        self.other = repository.image("other")
        repository.point("1.5", self.old.manifest)
        repository.point("1.5", self.new.manifest)
        repository.point("2", self.other.manifest)

    def decide(
        self,
        *images: str,
        rules: str = "",
        namespace: str = "default",
        labels: dict[str, str] | None = None,
        namespace_labels: dict[str, str] | None = None,
        now: datetime.datetime = NOW,
        **spec: Any,
    ) -> Decision:
        chosen = policy(rules)
        templates = templates_of(pod(*images, labels=labels, **spec), ("", "Pod"), chosen.paths)
        assert templates is not None
        subject = Subject(namespace, templates, namespace_labels)
        knowledge = {image: unasked(image) for image in subject.images}
        asked = [one.image for one in knowledge.values() if one.reference and chosen.asks(one.reference.host)]
        knowledge |= inquire(asked, self.registries, InquiryOptions(timeout=5))
        return decide(subject, chosen, knowledge, now)


@pytest.fixture
def world() -> World:
    return World()


def held(decision: Decision) -> set[str]:
    return {finding.condition for finding in decision.findings}


NAMES: dict[str, Callable[[World], str]] = {
    "tag": lambda _: f"{NAME}:1.5",
    "tag and its digest": lambda world: f"{NAME}:1.5@{world.new.manifest}",
    "tag and its digest of before": lambda world: f"{NAME}:1.5@{world.old.manifest}",
    "tag and another's digest": lambda world: f"{NAME}:1.5@{world.other.manifest}",
    "digest": lambda world: f"{NAME}@{world.new.manifest}",
    "no such tag": lambda _: f"{NAME}:9",
    "no such digest": lambda _: f"{NAME}@{Digest.of(b'nothing')}",
    "no such repository": lambda _: f"{HOST}/team/none:1",
    "another registry": lambda _: "other.example/app:1",
    "another registry's digest": lambda _: f"other.example/app@{Digest.of(b'nothing')}",
    "no name": lambda _: "Not A Name",
}
HELD = {
    "tag": {"not-pinned", "not-assessed"},
    "tag and its digest": {"not-assessed"},
    "tag and its digest of before": {"not-assessed"},
    "tag and another's digest": {"not-assessed", "never-pointed"},
    "digest": {"not-assessed"},
    "no such tag": {"not-pinned", "missing"},
    "no such digest": {"missing"},
    "no such repository": {"not-pinned", "missing"},
    "another registry": {"not-pinned", "unknown-registry"},
    "another registry's digest": {"unknown-registry"},
    "no name": {"missing"},
}


@pytest.mark.parametrize("name", NAMES)
def test_conditions_of_names(world: World, name: str) -> None:
    decision = world.decide(NAMES[name](world))
    assert held(decision) == HELD[name], [finding.text for finding in decision.findings]
    assert decision.allowed == ("never-pointed" not in HELD[name])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("action", ["allow", "warn", "deny"])
def test_each_condition_does_what_the_policy_says(world: World, name: str, action: str) -> None:
    for condition in HELD[name]:
        lines = [f'{one} = "allow"' for one in HELD[name] | {"unknown"} if one != condition]
        rules = "\n".join(["[default]", f'{condition} = "{action}"', *lines])
        decision = world.decide(NAMES[name](world), rules=rules)
        assert decision.allowed == (action != "deny"), condition
        found: dict[str, str] = {one.condition: one.action for one in decision.findings}
        assert found[condition] == action


# (image, minutes since the first move, moved-within, whether it holds): the second move was a minute later.
AGES = [
    ("tag", 2, "1h", True),
    ("tag", 60, "1h", True),
    ("tag", 62, "1h", False),
    ("tag", 62, "2h", True),
    ("tag and its digest", 30, "1h", True),
    ("tag and its digest", 62, "1h", False),
    ("tag and its digest of before", 59, "1h", True),
    ("tag and its digest of before", 61, "1h", False),
    ("digest", 2, "1h", False),
]


@pytest.mark.parametrize(("name", "minutes", "within", "holds"), AGES)
def test_ages_by_the_journal(world: World, name: str, minutes: int, within: str, holds: bool) -> None:
    first = world.registries.at(NAME).events[-1].at
    rules = f'[default]\nmoved = "deny"\nmoved-within = "{within}"\n'
    now = first + datetime.timedelta(minutes=minutes)
    decision = world.decide(NAMES[name](world), rules=rules, now=now)
    assert ("moved" in held(decision)) == holds, [finding.text for finding in decision.findings]
    assert decision.allowed == (not holds)


@pytest.mark.parametrize(("microseconds", "holds"), [(-1, True), (0, False), (1, False)])
def test_less_than_so_long_ago_to_the_microsecond(world: World, microseconds: int, holds: bool) -> None:
    newest = max(event.at for event in world.registries.at(NAME).events if event.tag == "1.5")
    now = newest + datetime.timedelta(hours=1, microseconds=microseconds)
    decision = world.decide(f"{NAME}:1.5", rules='[default]\nmoved-within = "1h"\n', now=now)
    assert ("moved" in held(decision)) == holds


def test_a_name_by_sha512_spoils_no_question_about_others() -> None:
    """Cosign's tag for such a digest would be longer than a tag may be, and no registry can have it."""
    from digestry.advisories.attachments import attachment_tags

    long = Digest.of(b"x", "sha512")
    assert attachment_tags(long) == (f"sha512-{long.encoded[:64]}",)
    short = Digest.of(b"x")
    assert attachment_tags(short) == (f"sha256-{short.encoded}", f"sha256-{short.encoded}.att")


def test_a_time_to_come_is_not_known(world: World) -> None:
    first = world.registries.at(NAME).events[-1].at
    decision = world.decide(f"{NAME}:1.5", now=first - datetime.timedelta(days=1))
    (finding,) = [one for one in decision.findings if one.condition == "unknown"]
    assert "yet to come" in finding.reason


def test_a_registry_without_a_journal_is_not_known() -> None:
    world = World(FakeRegistries(remembers=False))
    decision = world.decide(f"{NAME}:1.5")
    assert "unknown" in held(decision)
    assert "keeps no tag history" in decision.findings[0].reason + decision.findings[-1].reason
    decision = world.decide(f"{NAME}:1.5", rules='[default]\nmoved = "allow"\nnever-pointed = "allow"\n')
    assert "unknown" not in held(decision)
    decision = world.decide(f"{NAME}:1.5@{world.other.manifest}", rules='[default]\nunknown = "deny"\n')
    assert not decision.allowed


def test_a_mirror_that_is_behind(world: World) -> None:
    world.registries.outdated[NAME, "1.5"] = "stale; registry=upstream.example"
    decision = world.decide(f"{NAME}:1.5", rules='[default]\nbehind = "deny"\n')
    assert not decision.allowed
    (finding,) = decision.having("deny")
    assert finding.condition == "behind"
    assert "upstream.example" in finding.reason


@pytest.mark.parametrize("action", ["allow", "warn", "deny"])
def test_a_registry_that_is_away(world: World, action: str) -> None:
    world.registries.fail(HOST, Unreachable("nothing listens there"))
    decision = world.decide(f"{NAME}@{world.new.manifest}", rules=f'[default]\naway = "{action}"\n')
    assert held(decision) == {"away"}
    assert "nothing listens there" in decision.findings[0].reason
    assert decision.allowed == (action != "deny")


RULES = """
[default]
not-pinned = "allow"

[[rule]]
name = "probes"
match = { namespaces = ["prod-*"], labels = "app in (probe, canary)" }
not-pinned = "allow"

[[rule]]
name = "production"
match = { namespaces = ["prod-*"] }
except = { labels = "legacy" }
not-pinned = "deny"

[[rule]]
name = "labelled"
match = { namespace-labels = "env=production,!paused" }
not-pinned = "warn"
"""
Target = tuple[str, dict[str, str], dict[str, str] | None, tuple[str, ...], str]
"""Namespace, labels, labels of the namespace, rules, action."""
TARGETS: list[Target] = [
    ("prod-a", {}, {}, ("production",), "deny"),
    ("prod-a", {"app": "probe"}, {}, ("probes",), "allow"),
    ("prod-a", {"app": "web"}, {}, ("production",), "deny"),
    ("prod-a", {"legacy": ""}, {}, ("default",), "allow"),
    ("prod-a", {"legacy": ""}, {"env": "production"}, ("labelled",), "warn"),
    ("prod", {}, {}, ("default",), "allow"),
    ("shop", {}, {"env": "production"}, ("labelled",), "warn"),
    ("shop", {}, {"env": "production", "paused": ""}, ("default",), "allow"),
    ("shop", {}, {"env": "test"}, ("default",), "allow"),
    ("shop", {}, None, ("labelled", "default"), "warn"),
    ("prod-a", {}, None, ("production",), "deny"),
]


@pytest.mark.parametrize("row", TARGETS)
def test_the_first_rule_decides(world: World, row: Target) -> None:
    namespace, labels, of_namespace, rules, action = row
    decision = world.decide(
        f"{NAME}:1.5", rules=RULES, namespace=namespace, labels=labels, namespace_labels=of_namespace
    )
    assert decision.rules == rules
    (finding,) = [one for one in decision.findings if one.condition == "not-pinned"]
    assert finding.action == action
    assert bool(decision.notes) == (len(rules) > 1)


EXEMPT = """
[default]
not-pinned = "deny"
[[exempt]]
images = ["r.example/team/*"]
namespaces = ["lab"]
conditions = ["not-pinned"]
reason = "until the build pins"
until = 2026-02-15
"""


def test_an_exemption_lets_through_until_it_ends(world: World) -> None:
    image = f"{NAME}:1.5"
    last = datetime.datetime(2026, 2, 15, 23, 59, tzinfo=datetime.UTC)
    decision = world.decide(image, rules=EXEMPT, namespace="lab", now=last)
    assert decision.allowed
    (finding,) = [one for one in decision.findings if one.exempted]
    assert "until the build pins" in finding.exempted
    assert not world.decide(image, rules=EXEMPT, now=last).allowed
    decision = world.decide(image, rules=EXEMPT, namespace="lab", now=last + datetime.timedelta(minutes=2))
    assert not decision.allowed
    assert "an exemption ended" in decision.findings[0].text


def test_the_node_s_own_image_is_not_what_its_registry_has(world: World) -> None:
    content = pod(f"{NAME}:1.5")
    content["spec"]["containers"][0]["imagePullPolicy"] = "Never"
    templates = templates_of(content, kind_of(content))
    assert templates is not None
    subject = Subject("default", templates)
    knowledge = inquire(subject.images, world.registries, InquiryOptions(timeout=5))
    assert "unknown" in held(decide(subject, policy(), knowledge, NOW))


def test_a_stale_answer_counts_against_an_image_alone(world: World) -> None:
    image = f"{NAME}:1.5"
    chosen = policy('[default]\naway = "allow"\naffected = "deny"\n')
    known = inquire([image], world.registries, InquiryOptions(timeout=5))[image]
    templates = templates_of(pod(image), ("", "Pod"))
    assert templates is not None
    old = replace(known, away="it is away")
    decision = decide(Subject("default", templates), chosen, {image: old}, NOW)
    assert held(decision) == {"not-pinned", "away"}
    assert decision.allowed


def test_references_are_what_kubelets_make_of_names(world: World) -> None:
    from digestry.admission.inquiry import parse_image

    assert parse_image("nginx") == Reference.parse("docker.io/library/nginx:latest")
    assert parse_image(f"{NAME}@{world.new.manifest}").tag is None


def test_what_a_stale_answer_says_of_the_tag_counts_against_it(world: World) -> None:
    image = f"{NAME}:1.5@{world.other.manifest}"
    chosen = policy('[default]\naway = "allow"\n[answers]\n')
    known = inquire([image], world.registries, InquiryOptions(timeout=5))[image]
    subject = Subject("default", templates_of(pod(image), ("", "Pod"), chosen.paths) or [])
    decision = decide(subject, chosen, {image: replace(known, away="it is away")}, NOW)
    assert held(decision) == {"away", "never-pointed"}
    assert not decision.allowed


def test_an_unknown_assessment_is_told_to_who_wants_assessed_images(world: World) -> None:
    image = f"{NAME}@{world.new.manifest}"
    rules = '[default]\naffected = "allow"\nnot-assessed = "deny"\nunknown = "deny"'
    chosen = policy(rules)
    known = inquire([image], world.registries, InquiryOptions(timeout=5))[image]
    known = replace(known, assessment="unknown", assessment_reasons=("referrers failed",))
    subject = Subject("default", templates_of(pod(image), ("", "Pod"), chosen.paths) or [])
    decision = decide(subject, chosen, {image: known}, NOW)
    assert not decision.allowed
    assert "referrers failed" in decision.findings[0].reason


def test_a_pod_that_leaves_a_lenient_rule_is_judged_whole() -> None:
    rules = '[[rule]]\nname = "strict"\nexcept = { labels = "app=probe" }\nnot-pinned = "deny"'
    chosen = policy(rules)

    def templates(label: str) -> list[PodTemplate]:
        return templates_of(pod("r.example/a:1", labels={"app": label}), ("", "Pod")) or []

    probe, shop, other = templates("probe"), templates("shop"), templates("other")
    assert unchanged_images(chosen, "n", {}, probe, probe) == {"r.example/a:1"}
    assert unchanged_images(chosen, "n", {}, shop, other) == {"r.example/a:1"}
    assert unchanged_images(chosen, "n", {}, probe, shop) == frozenset()
    assert unchanged_images(policy('unchanged = "judge"'), "n", {}, shop, shop) == frozenset()
