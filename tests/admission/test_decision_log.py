"""The log of decisions: written before the answer where it can be, and never in the way of one."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from digestry.admission.decision_log import DecisionLog
from tests.admission.support import pod, review, running_webhook
from tests.support import RegistryServer


def test_lines_are_written_before_the_answer(tmp_path: Path) -> None:
    lost: list[int] = []

    async def write() -> None:
        with (tmp_path / "log").open("wb") as file:
            log = DecisionLog(file.fileno(), lambda: lost.append(1))
            for number in range(20):
                await log.write(f"{number} é\n")
            assert (tmp_path / "log").read_text() == "".join(f"{number} é\n" for number in range(20))
            await log.close(5)

    asyncio.run(write())
    assert not lost


@pytest.mark.long
def test_a_reader_that_takes_nothing_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    reads, writes = os.pipe()
    lost: list[int] = []

    async def write() -> None:
        log = DecisionLog(writes, lambda: lost.append(1))
        begun = time.monotonic()
        for _ in range(400):
            await log.write("x" * 65_000 + "\n")
        assert time.monotonic() - begun < 30  # not 400 times the patience
        assert lost  # more than is kept
        assert "takes nothing" in caplog.text
        read = 0
        os.set_blocking(reads, False)
        while read < 65_001 * 250:  # what was kept comes, whole
            try:
                read += len(os.read(reads, 1 << 20))
            except BlockingIOError:
                await asyncio.sleep(0.001)
        await log.close(5)

    asyncio.run(write())
    assert "is written again" in caplog.text
    os.close(reads)
    os.close(writes)


@pytest.mark.long
def test_a_full_disk_changes_no_answer(registry: RegistryServer, tmp_path: Path) -> None:
    digest = registry.push_image("door/full", "1", b"full")
    image = f"{registry.host}/door/full@{digest}"
    policy = f'registries = ["{registry.host}"]\n'
    with running_webhook(tmp_path, policy, output="/dev/full") as webhook:
        assert webhook.ask(review(pod(image)))["allowed"]
        assert webhook.ask(review(pod(image)))["allowed"]
        assert webhook.log.read_text().count("their log cannot be written: no space left on device") == 1
        assert "digestry_admission_lost_log_lines_total 2.0" in webhook.status("/metrics")[1]
