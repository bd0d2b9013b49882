"""Makes folders with other Debian releases' engines: ``python3 tools/debian_roots.py [RELEASE …]``, as root.

Each release is bootstrapped into ``debian/RELEASE`` of the folder ``DIGESTRY_PEERS_CACHE``, else of
``~/.cache/digestry/peers``, from the mirror that this machine's own sources name. What is whole is left as
it is; what broke off is done again, from the packages that had been downloaded. Needs Python and
``debootstrap``, and 1.5 GiB a release.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = ("docker.io", "containerd", "runc", "podman", "iptables")
# The programs by which a whole folder is known.
PROGRAMS = ("usr/sbin/dockerd", "usr/bin/containerd", "usr/bin/ctr", "usr/sbin/runc", "usr/bin/podman")
RELEASES = {"trixie": "trixie", "forky": "sid"}
"""Each release, and the script of debootstrap's that serves for it."""
MORE = {"forky": ("cosign",)}
"""What a release has besides: packages that are one program each, of the same name."""
_SCRIPTS = Path("/usr/share/debootstrap/scripts")
_MIRROR = re.compile(r"^(?:URIs:|deb(?:\s+\[[^]]*\])?)\s+(\S+)", re.MULTILINE)


def cache() -> Path:
    """The folder of everything that is kept for tests; outside of the checkout."""
    named = os.environ.get("DIGESTRY_PEERS_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(named) if named else Path(home) / "digestry" / "peers"


def mirror() -> str:
    """The first mirror that this machine's own package sources name."""
    apt = Path("/etc/apt")
    for path in [*sorted((apt / "sources.list.d").glob("*.sources")), apt / "sources.list",
                 *sorted((apt / "sources.list.d").glob("*.list"))]:  # fmt: skip
        found = _MIRROR.search(path.read_text()) if path.exists() else None
        if found:
            return found[1]
    sys.exit("debian_roots: no source of packages is configured in /etc/apt")


def whole(root: Path, release: str) -> bool:
    """Whether a folder has everything. debootstrap keeps a folder of its own until it has finished."""
    programs = [*PROGRAMS, *(f"usr/bin/{name}" for name in MORE.get(release, ()))]
    return all((root / name).exists() for name in programs) and not (root / "debootstrap").exists()


def make(release: str) -> None:
    """Makes one release's folder, unless it is there."""
    folder = cache() / "debian"
    folder.mkdir(parents=True, exist_ok=True)
    root, archives = folder / release, folder / f"{release}.packages"
    with (folder / f"{release}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if whole(root, release):
            return
        partial = folder / f"{release}.partial"
        for path in (partial, root):
            if path.is_symlink():
                sys.exit(f"debian_roots: {path} is a link to a folder that lacks programs: remove it")
            shutil.rmtree(path, ignore_errors=True)
        archives.mkdir(exist_ok=True)
        own = _SCRIPTS / release
        script = own if own.exists() else _SCRIPTS / RELEASES[release]
        packages = ",".join((*PACKAGES, *MORE.get(release, ())))
        # What debootstrap mounts is gone with its namespace, however it ends.
        command = ["unshare", "--mount", "--propagation=private", "debootstrap", "--variant=minbase",
                   f"--include={packages}", f"--cache-dir={archives}", release,
                   str(partial), mirror(), str(script)]  # fmt: skip
        log = folder / f"{release}.log"
        with log.open("w") as output:
            # The lock goes with it: nobody else begins while it still runs.
            code = subprocess.run(
                command, stdout=output, stderr=output, pass_fds=(lock.fileno(),), check=False
            ).returncode
        if code or not whole(partial, release):
            end = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            sys.exit(f"debian_roots: {release} could not be made (exit code {code}):\n{end}")
        partial.replace(root)
        shutil.rmtree(archives, ignore_errors=True)


def main() -> None:
    """Makes the releases that the command line names, or all."""
    releases = sys.argv[1:] or list(RELEASES)
    for release in releases:
        if release not in RELEASES:
            sys.exit(f"debian_roots: there is no {release}; the releases are {', '.join(RELEASES)}")
    for release in releases:
        make(release)
        print(cache() / "debian" / release)


if __name__ == "__main__":
    main()
