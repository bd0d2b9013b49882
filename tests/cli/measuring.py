"""What can be asked of a process at its end, when a command has ended well in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def at_the_end(report: str, home: Path, *arguments: str) -> list[str]:
    """Run a command in a process of its own; return the words that the code ``report`` prints after it, last
    of all on standard error."""
    script = (
        "import sys\nfrom digestry.cli import late_modules\nlate_modules.install()\n"
        "from digestry.cli.main import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        f"{report}"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "DIGESTRY_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr.splitlines()[-1].split()
