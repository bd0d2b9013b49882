"""The table as docs/engines.md shows it: ``python -m tests.e2e.reality.page`` prints it."""

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


if __name__ == "__main__":
    print(kinds(), table(), less(), sep="\n\n")
