"""The reasons why a pod's container waits, and the advice for each.

The kubelet gives a reason of its own (``ErrImagePull``) and the container runtime's words, which contain the
registry's. There is no standard for them: causes that they do not state are not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

Waiting: TypeAlias = Literal[
    "",  # it does not wait
    "name",
    "missing",
    "access",
    "limit",
    "platform",
    "registry",
    "pull",
    "never pulled",
    "signature",
    "starting",
    "unscheduled",
    "crashing",
    "configuration",
    "other",
]
"""The reason why a container waits."""

_QUOTED: Final = re.compile(r"\"[^\"]*\"|'[^']*'")
_PULLS: Final = frozenset({"ErrImagePull", "ImagePullBackOff"})
_REASONS: Final[Mapping[str, Waiting]] = MappingProxyType(
    {
        "InvalidImageName": "name",
        "ErrInvalidImageName": "name",
        "RegistryUnavailable": "registry",
        "ErrImageNeverPull": "never pulled",
        "SignatureValidationFailed": "signature",
        "ImageInspectError": "pull",
        "ContainerCreating": "starting",
        "PodInitializing": "starting",
        "CrashLoopBackOff": "crashing",
        "CreateContainerConfigError": "configuration",
        "CreateContainerError": "configuration",
        "RunContainerError": "configuration",
        "StartError": "configuration",
    }
)
# The first that is found decides. "pull access denied … repository does not exist or may require
# authorization" is docker.io's answer to both, and only a login shows which: that is access.
_WORDS: Final[Mapping[Waiting, str]] = MappingProxyType(
    {
        "limit": r"toomanyrequests|too many requests|rate limit|\b429\b",
        "platform": r"no match for platform|no matching manifest|no image found in",
        "access": r"unauthorized|authori[sz]ation|authentication|insufficient_scope|access denied|\bdenied\b"
        r"|forbidden|no basic auth|\b40[13]\b",
        "name": r"invalid reference|couldn't parse image|invalid image name",
        "registry": r"no such host|connection refused|connection reset|network is unreachable|no route to"
        r"|timed? ?out|deadline exceeded|dial tcp|tls:|x509|certificate|server gave HTTP response"
        r"|unexpected EOF|\b50[234]\b|service unavailable|bad gateway",
        "missing": r"not found|not exist|manifest unknown|name unknown|(?:manifest|name)_unknown|\b404\b",
    }
)

ADVICE: Final[Mapping[Waiting, str]] = MappingProxyType(
    {
        "name": "its image's name is not valid: correct it",
        "missing": "its registry has no such image: correct the name, or push it there",
        "access": "its registry does not let it pull the image: give its pod credentials (imagePullSecrets)"
        " that may, or correct the name",
        "limit": "its registry allows no more pulls just now: wait, log in, or pull through a mirror",
        "platform": "its image has nothing for its node's platform: push one that has, or run it elsewhere",
        "registry": "its node does not reach the registry: look at its network, the registry's name and its"
        " certificate",
        "pull": "its image could not be pulled: the pod's events say why",
        "never pulled": "its image is not on its node, and imagePullPolicy Never forbids a pull",
        "signature": "its node does not accept the image's signature: sign it, or correct the policy",
        "starting": "audit again when it has started",
        "unscheduled": "no node takes it: the pod's events say why",
        "crashing": "it ends as soon as it is started: look at its log, and audit again when it runs",
        "configuration": "it cannot be started: the pod's events say why",
        "other": "it does not run: the pod's events say why",
    }
)
"""The advice, for a person."""
PRESENT: Final = (
    "its image could not be pulled, and its registry has it: look at its pod's credentials"
    " (imagePullSecrets) and its node's way to the registry"
)
"""The reason without an explanation, for an image that is known to exist."""


def waits_for(reason: str, message: str) -> Waiting:
    """Return the reason why a container waits, by ``state.waiting`` of its status."""
    if reason not in _PULLS:
        return _REASONS.get(reason, "other")
    # The image's own name may have any of these words in it.
    words = " ".join(word for word in _QUOTED.sub(" ", message).split() if "/" not in word)
    return next((why for why, pattern in _WORDS.items() if re.search(pattern, words, re.IGNORECASE)), "pull")
