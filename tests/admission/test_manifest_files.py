"""Files of manifests: what is read in them, at which line, and what is wrong with others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from digestry.admission.manifest_files import ManifestObject, read_objects
from digestry.errors import InvalidConfiguration
from tests.support import RegistryServer, run_digestry

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers:
  - name: c
    image: r.example/a:1
"""


def objects(text: str | bytes) -> list[ManifestObject]:
    return list(read_objects(text.encode() if isinstance(text, str) else text, "f.yaml"))


def test_lines_of_objects_and_of_their_images() -> None:
    image = "spec.containers[0].image"
    (one,) = objects(POD)
    assert (one.lines.line(), one.lines.line(image)) == (1, 7)
    _, two = objects(f"# first\n{POD}---\n# second\n{POD}")
    assert (two.place, two.lines.line(), two.lines.line(image)) == ("f.yaml, document 2", 11, 17)
    (crlf,) = objects(b"\xef\xbb\xbf" + POD.replace("\n", "\r\n").encode())
    assert crlf.lines.line(image) == 7
    (wide,) = objects(POD.encode("utf-16"))
    assert wide.lines.line(image) == 7
    listed = "apiVersion: v1\nkind: List\nitems:\n" + "".join(
        ("- " if not number else "  ") + f"{line}\n" for number, line in enumerate(POD.splitlines())
    )
    (item,) = objects(listed)
    assert (item.lines.line(), item.lines.line(image)) == (4, 10)
    merged = POD.replace("  - name: c\n    image: r.example/a:1\n", "  - <<: *base\n    name: c\n")
    (one,) = objects(merged.replace("spec:", "x: &base\n  image: r.example/b:1\nspec:"))
    assert one.lines.line(image) == 5
    # What is not there has the line of what it should be in.
    assert one.lines.line("spec.volumes[3].image") == 6


def test_a_review_in_a_file_is_what_it_asks() -> None:
    request = {"kind": {"group": "", "kind": "Pod"}, "operation": "DELETE", "subResource": "", "object": None}
    document = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    (one,) = objects(json.dumps(document))
    change = one.change
    assert (change.operation, change.subresource, change.content) == ("DELETE", "", {})


WRONG: dict[str, tuple[str | bytes, int, str]] = {
    "a key twice": ("kind: Pod\nkind: Pod\n", 2, "the key 'kind' is there twice"),
    "a tab": ("a:\n\tb: c\n", 2, "cannot start any token"),
    "a zero byte": ("a: 1\nb: \x00\n", 2, "the character U+0000 is not allowed"),
    "a bell": ("a: 1\nb: \x07\n", 2, "U+0007"),
    "Latin-1": ('a: 1\nb: "\u00fc"\n'.encode("latin-1"), 2, "it is not UTF-8"),
    "no object": ("- a\n", 1, "a Kubernetes object is required"),
    "a tag of Python": ("a: &a [x, *a]\nb: !!python/name:os.system x\n", 2, "determine a constructor"),
    # The C library's recursion would end the process.
    "open brackets": ("a: 1\nb: " + "[" * 200_000, 2, "nested too deeply"),
    "brackets": ("[" * 200_000 + "]" * 200_000, 1, "nested too deeply"),
    "JSON": ('{"a":' * 200_000, 1, "nested too deeply"),
    "dashes": ("# deep\n" + "- " * 200_000 + "x", 2, "nested too deeply"),
    "UTF-16": (("[" * 200_000 + "]" * 200_000).encode("utf-16"), 1, "nested too deeply"),
    "indentation": ("".join(" " * depth + "a:\n" for depth in range(1000)), 301, "nested too deeply"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_read_is_named(name: str) -> None:
    content, line, problem = WRONG[name]
    with pytest.raises(InvalidConfiguration) as caught:
        objects(content)
    assert problem in caught.value.message
    assert f", line {line}: " in caught.value.message


def test_an_unrendered_chart_is_recognised() -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        objects("metadata:\n  name: {{ .Release.Name }}\n")
    assert "helm template" in caught.value.hint


def test_what_was_not_looked_at_is_no_success(registry: RegistryServer, tmp_path: Path) -> None:
    digest = registry.push_image("ci/app", "1", b"ci")
    policy = tmp_path / "admission.toml"
    workload = '[[workload]]\ngroup = "x.io"\nkind = "Thing"\npaths = ["spec.template"]\n'
    policy.write_text(f'registries = ["{registry.host}"]\n[default]\nmoved = "allow"\n{workload}')
    image = f"{registry.host}/ci/app:1@{digest}"
    good = POD.replace("r.example/a:1", image)

    def status(text: str, *words: str) -> tuple[int, str, str]:
        done = run_digestry("admission", "test", "-", "--policy", policy, *words, given=text)
        return done.returncode, done.stdout, done.stderr

    assert status(good)[0] == 0
    code, output, _ = status("apiVersion: x.io/v1\nkind: Thing\nmetadata: {name: t}\nspec: {tempalte: 1}\n")
    assert code == 3
    assert "NOTE" in output
    assert "there is no pod template at spec.template" in output
    thing = good.replace("v1\nkind: Pod", "z.io/v1\nkind: Other")
    code, output, errors = status(thing)
    assert code == 3
    assert "it is not known where a Other (z.io) names images" in output
    assert "(Other)" in errors
    # A settings object has none.
    code, _, errors = status(f"{good}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\n")
    assert code == 0
    assert "(ConfigMap)" in errors
    code, output, _ = status(f"{good}---\n{good.replace(image, 'r.example/a:1')}", "--fail-on", "warn")
    assert code == 1
    assert "standard input:15" in output
    faulty = POD.replace("r.example/a:1", "12")
    code, output, _ = status(faulty)
    assert code == 1
    assert "DENY" in output
