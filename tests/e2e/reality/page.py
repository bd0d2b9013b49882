"""The table as docs/engines.md shows it: ``python -m tests.e2e.reality.page >docs/engines.md``."""

from __future__ import annotations

from tests.e2e.reality.rows import ROWS, Right, Row
from tests.e2e.reality.runtimes import KINDS

_FAMILIES = {
    "docker-classic": "Docker, classic store",
    "docker-containerd": "Docker, containerd store",
    "podman": "podman",
    "ctr": "containerd by `ctr`",
    "cri": "the CRI",
    "containerd-1.6-cri": "the CRI of containerd 1.6",
}


_HEAD = """\
# Engines

`make reality` creates every situation below on every one of these runtimes, with real containers, and
compares the report of `digestry audit` with the one right answer. It needs root; `.ci/run` runs it. The
situations and their answers are data, in `tests/e2e/reality/rows.py`, and this page is generated from
them.

`tools/debian_roots.py` fetches the programs of other Debian releases with debootstrap, into
`~/.cache/digestry/peers` or `DIGESTRY_PEERS_CACHE`. Each engine runs in its own namespaces, from a
directory that is not written to. The tests ask the CRI to start containers as a kubelet does: by the
image's ID, with the pod's name for the image beside it. CRI-O, cri-dockerd and Docker Desktop were not
run.
"""

_TABLE = """\
## The right answers

`v1`, `v2`, … are the digests of images; `a-own` is this platform's image in the index `a`. The advisory
is about `v1` (or `a`), and names the last image as the one that fixes it.
"""

_LESS = """\
## What a runtime cannot know

In these cases the audit may report less, with a reason, but never "fixed", "current" or exit code 0 in
its place.

- **containerd by `ctr`** stores the name of a container's image, and no digest. The audit identifies
  what runs only if the layers of the image that the name means now are the layers that run; otherwise
  the container is `unknown`, in every situation.
- **The CRI of containerd 1.6** stores the ID that a kubelet passes, and not the pod's name for the
  image. The tag is `unknown` in every situation. If several repositories have the ID, the report may
  name another one of them; if none has it, nothing is known.
"""


def table() -> str:
    """One line for each row: what is true of each container, and where less than that may be said."""
    lines = ["| situation | the right answer | exit code |", "| --- | --- | --- |"]
    for row in ROWS:
        right = "; ".join(f"`{name}`: {_answer(one)}" for name, one in row.right.items())
        lines.append(f"| {row.name} | {right} | {row.exit} |")
    return "\n".join(lines)


def less() -> str:
    """One line for each situation in which a runtime cannot know everything."""
    lines = ["| situation | runtime | what may be said | why |", "| --- | --- | --- | --- |"]
    for row in ROWS:
        for one in row.less:
            names = ", ".join(_FAMILIES[name] for name in sorted(one.families))
            lines.append(f"| {row.name} | {names} | {_others(row, one.answers)} | {one.why} |")
    general = {one.why: one for row in ROWS for one in row.less}
    common = [why for why in general if all(why in {one.why for one in row.less} for row in ROWS)]
    return "\n".join(line for line in lines if not any(why in line for why in common))


def kinds() -> str:
    """One line for each runtime."""
    lines = ["| runtime | Debian release | how it is asked |", "| --- | --- | --- |"]
    lines += [f"| {kind.name} | {kind.release} | {_FAMILIES[kind.family]} |" for kind in KINDS]
    return "\n".join(lines)


def _answer(one: Right) -> str:
    return f"runs {one.runs or 'nobody knows what'}, tag {one.tag}, {one.advisory.replace('_', ' ')}"


def _others(row: Row, answers: object) -> str:
    assert isinstance(answers, dict)
    return "; ".join(
        f"`{name}`: {' or '.join(_answer(one) for one in allowed)}"
        for name, allowed in answers.items()
        if name in row.right
    )


def page() -> str:
    """All of docs/engines.md."""
    return f"{_HEAD}\n{kinds()}\n\n{_TABLE}\n{table()}\n\n{_LESS}\n{less()}\n"


if __name__ == "__main__":
    print(page(), end="")
