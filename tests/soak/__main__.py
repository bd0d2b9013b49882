"""``python -m tests.soak --minutes 10``: the long one, by hand."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.soak.run import soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--nodes", type=int, default=0, help="on PostgreSQL and S3; 0: on a disk")
    parser.add_argument("--lease", type=int, help="seconds; 6, or 30 with nodes")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="digestry-soak-") as folder:
        outcome = soak(
            Path(folder),
            seconds=given.minutes * 60,
            clients=given.clients,
            seed=given.seed,
            lease=given.lease or (30 if given.nodes else 6),
            workers=given.workers,
            nodes=given.nodes,
        )
    print(f"{outcome.seconds:.0f} s; the clients: {dict(sorted(outcome.did.items()))}")
    print(f"collection, in all: {outcome.collected}")
    for text in outcome.wrong:
        print(f"WRONG: {text}")
    for text in outcome.left[:50]:
        print(f"LEFT: {text}")
    for text in outcome.logged[:50]:
        print(f"LOGGED: {text}")
    return 1 if outcome.wrong or outcome.left or outcome.logged else 0


if __name__ == "__main__":
    sys.exit(main())
