"""The words for a container's state in all formats."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

State: TypeAlias = Literal["runs", "waits", "ended", ""]
"""``waits`` is a container that has not been started yet; ``""`` is an unknown word."""

_WORD: Final = re.compile(r"(?:(?:container|task|sandbox|instance)[_ ])?([a-z]+)")
"""The CRI has ``CONTAINER_RUNNING``, Mesos ``TASK_RUNNING``."""
_NOT_RUNNING: Final = re.compile(r"not[ _-]?running|powered[ _-]off")
_WORDS: Final[dict[State, str]] = {
    "runs": """
        running up paused pausing restarting removing stopping started active healthy unhealthy true yes
        degraded ready runningatmaxscale processing deactivating terminating online alive frozen
        suspending destroying preempting
    """,
    "waits": """
        waiting pending provisioning new allocated assigned accepted preparing starting activating queued
        scheduled initialized creating containercreating podinitializing imagepullbackoff errimagepull
        crashloopbackoff configured unscheduled activationfailed init schedulinggated invalidimagename
        createcontainerconfigerror createcontainererror runcontainererror errimageneverpull launching
    """,
    "ended": """
        exited exit dead created stopped terminated completed complete succeeded failed shutdown shut
        rejected removed remove deprovisioning deprovisioned deleted finished inactive done evicted killed
        cancelled canceled scaledtozero scaled retired false error oomkilled notrunning suspended stop ended
        offline down halted aborted crashed destroyed replaced migrated launch deallocated poweredoff
        storage exitcode signal starterror containercannotrun deadlineexceeded preempted terminatedbyuser
    """,
}
_STATES: Final = {word: state for state, words in _WORDS.items() for word in words.split()}


def state_of(text: str) -> State:
    """Return the state that a program means by ``text``: ``Up 2 hours``, ``Exited (0)``, ``STOPPED``.

    The first word decides.
    """
    match = _WORD.search(_NOT_RUNNING.sub("notrunning", text.lower()))
    return _STATES.get(match[1], "") if match else ""
