"""The time at which the process of a task began, from what the kernel shows."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from digestry.inventory.followers.task_processes import began_at

IDENTITY = "a4c6e2"


def kernel(tmp_path: Path, group: str, *, namespace: str = "pid:[4026531836]") -> Path:
    """Return a directory that shows one process, of the number 77, as the kernel does."""
    own = tmp_path / "self/ns"
    own.mkdir(parents=True)
    (own / "pid").symlink_to(namespace)
    process = tmp_path / "77"
    process.mkdir()
    (process / "cgroup").write_text(f"4:memory:/\n0::{group}\n")
    (process / "stat").write_text("77 (a) b) S " + " ".join(str(number) for number in range(4, 53)) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    "group",
    [
        f"/default/{IDENTITY}",
        f"/../../default/{IDENTITY}",
        f"/kubepods/burstable/pod1/{IDENTITY}",
        f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{IDENTITY}.scope",
        f"/kubepods-pod1.slice:cri-containerd:{IDENTITY}",
        f"/system.slice/docker-{IDENTITY}.scope/init.scope",
    ],
)
def test_a_process_in_the_group_of_its_container_tells_when_it_began(group: str, tmp_path: Path) -> None:
    began = began_at(IDENTITY, 77, processes=kernel(tmp_path, group))
    assert began is not None
    assert began < datetime.datetime.now(datetime.UTC)


@pytest.mark.parametrize(
    "group", ["/", "/default/another", f"/default/{IDENTITY}5", f"/default/x{IDENTITY}", ""]
)
def test_another_process_of_the_same_number_is_not_the_containers(group: str, tmp_path: Path) -> None:
    assert began_at(IDENTITY, 77, processes=kernel(tmp_path, group)) is None


def test_processes_of_another_namespace_are_not_looked_at(tmp_path: Path) -> None:
    shown = kernel(tmp_path, f"/default/{IDENTITY}", namespace="pid:[4026532999]")
    assert began_at(IDENTITY, 77, processes=shown) is None


def test_a_process_that_has_ended_tells_nothing(tmp_path: Path) -> None:
    assert began_at(IDENTITY, 78, processes=kernel(tmp_path, f"/default/{IDENTITY}")) is None
