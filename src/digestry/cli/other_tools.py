"""The commands and options of other tools, with their names here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# By docker, podman, crane, skopeo, regctl and oras.
_COMMANDS: Final = {
    "append": "pack",
    "artifact get": "blob get",
    "artifact list": "referrers",
    "artifact ls": "referrers",
    "artifact put": "attach",
    "artifact tree": "referrers",
    "artifact": "attach",
    "auth": "login",
    "auth login": "login",
    "auth logout": "logout",
    "backup ls": "backup",
    "blob delete": "rm",
    "blob fetch": "blob get",
    "blob head": "blob get",
    "blob push": "blob put",
    "build": "pack",
    "catalog": "ls",
    "commit": "pack",
    "container ls": "audit",
    "container": "audit",
    "cp": "copy",
    "daemon": "serve",
    "delete": "rm",
    "discover": "referrers",
    "image build": "pack",
    "image check-base": "inspect",
    "image copy": "copy",
    "image delete": "rm",
    "image diff": "diff",
    "image digest": "digest",
    "image export": "save",
    "image history": "history",
    "image import": "load",
    "image inspect": "inspect",
    "image list": "images",
    "image load": "load",
    "image ls": "images",
    "image manifest": "manifest get",
    "image mod": "manifest annotate",
    "image prune": "prune",
    "image pull": "pull",
    "image push": "push",
    "image rm": "rmi",
    "image save": "save",
    "image tag": "tag",
    "image": "images",
    "import": "load",
    "index append": "index add",
    "index delete": "index remove",
    "index rm": "index remove",
    "info": "config show",
    "list": "images",
    "list-tags": "tags",
    "manifest annotations": "manifest annotate",
    "manifest create": "index create",
    "manifest delete": "rm",
    "manifest diff": "diff",
    "manifest fetch": "manifest get",
    "manifest fetch-config": "inspect",
    "manifest head": "digest",
    "manifest index": "index create",
    "manifest inspect": "manifest get",
    "manifest push": "manifest put",
    "manifest rm": "rm",
    "mirror": "copy",
    "mount": "export",
    "mutate": "manifest annotate",
    "ps": "audit",
    "registry config": "config show",
    "registry login": "login",
    "registry logout": "logout",
    "registry serve": "serve",
    "registry": "serve",
    "remove": "rm",
    "repo": "ls",
    "repo ls": "ls",
    "repo tags": "tags",
    "search": "ls",
    "server": "serve",
    "system df": "images",
    "system info": "config show",
    "system prune": "prune",
    "system": "prune",
    "tag-history": "log",
    "tree": "referrers",
    "untag": "rmi",
    "verify": "validate",
    "vex": "advisory",
}
_OF_ENGINES: Final = frozenset(
    {"compose", "create", "events", "exec", "kill", "logs", "network", "pause", "port", "restart", "run"}
    | {"start", "stats", "stop", "top", "unpause", "volume", "wait"}
)
"""Docker's commands for containers."""
_PLAIN_HTTP: Final = "`digestry config set insecure-registries HOST` names the registries without TLS."
_LOGIN: Final = "`digestry login` keeps logins."
_EVERYWHERE: Final = {
    "--cert-dir": "SSL_CERT_FILE names a file of certificates that are trusted.",
    "--creds": _LOGIN,
    "--debug": "Did you mean --verbose?",
    "--dest-creds": _LOGIN,
    "--dest-tls-verify": _PLAIN_HTTP,
    "--dst-tls-verify": _PLAIN_HTTP,
    "--insecure": _PLAIN_HTTP,
    "--insecure-registry": _PLAIN_HTTP,
    "--json": "Did you mean --format json?",
    "--plain-http": _PLAIN_HTTP,
    "--src-creds": _LOGIN,
    "--src-tls-verify": _PLAIN_HTTP,
    "--tls": _PLAIN_HTTP,
    "--tls-verify": _PLAIN_HTTP,
}
_ALL_TAGS_HERE: Final = "`digestry copy --all-tags REPO local:REPO` copies all tags of a repository."
_ALL_TAGS_THERE: Final = "`digestry copy --all-tags local:REPO REPO` copies all tags of a repository."
_OPTIONS: Final = {
    "copy": {
        "--all": "Did you mean --all-platforms, or --all-tags?",
        "--multi-arch": "Did you mean --platform, or --all-platforms?",
        "--preserve-digests": "Digests stay as they are without it.",
        "--no-clobber": "Did you mean --dry-run? What a copy would move is listed.",
    },
    "gc": {"--yes": "gc asks nothing; --dry-run only looks.", "-y": "gc asks nothing; --dry-run only looks."},
    "images": {
        "--all": "All images are listed, those without a tag, too.",
        "-a": "All images are listed, those without a tag, too.",
    },
    "inspect": {
        "-f": "Did you mean --format?",
        "--config": "--format '{{json .Config}}' has the config; `digestry blob get` prints its bytes.",
    },
    "ls": {
        "-q": "Did you mean --format '{{.Repository}}'?",
        "--quiet": "Did you mean --format '{{.Repository}}'?",
        "--tags": "`digestry tags REPO` lists the tags of a repository.",
    },
    "prune": dict.fromkeys(("-f", "--force"), "Did you mean --yes?")
    | dict.fromkeys(("-a", "--all"), "What has no tag is removed unless --keep-untagged is given."),
    "pull": {"-a": _ALL_TAGS_HERE, "--all-tags": _ALL_TAGS_HERE},
    "push": {"-a": _ALL_TAGS_THERE, "--all-tags": _ALL_TAGS_THERE},
    "rm": dict.fromkeys(("-f", "--force"), "Did you mean --yes?"),
    "rmi": dict.fromkeys(("-f", "--force"), "rmi asks nothing, and needs no force."),
    "save": {"--multi-arch": "Did you mean --platform?"},
}


def command_for(words: Sequence[str]) -> str:
    """Return the name here of the command that ``words`` begin with; empty if that is not known."""
    return _COMMANDS.get(" ".join(words[:2]), _COMMANDS.get(words[0], ""))


def is_of_engines(word: str) -> bool:
    """Return whether ``word`` is a command of docker's for containers, which are not run here."""
    return word in _OF_ENGINES


def option_for(command: str, option: str) -> str:
    """Return a sentence on the replacement for an option of another tool; empty if that is not known."""
    return _OPTIONS.get(command, {}).get(option, _EVERYWHERE.get(option, ""))
