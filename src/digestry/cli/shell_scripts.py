"""The scripts that let bash, zsh and fish complete digestry's command line."""

from __future__ import annotations

import os
from typing import ClassVar, Final

from click import Command
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

PROGRAM: Final = "digestry"
VARIABLE: Final = "_DIGESTRY_COMPLETE"
SHELLS: Final = ("bash", "zsh", "fish")

_BASH: Final = """\
# bash completion for %(prog_name)s
%(complete_func)s() {
    local IFS=$'\\n' line type value current colons
    # Bash takes the colons in names for the ends of words: the whole line is looked at instead.
    current=${COMP_LINE:0:$COMP_POINT}
    current=${current##*[[:space:]]}
    colons=${current%%"${current##*:}"}
    COMPREPLY=()
    while IFS=',' read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                if [[ $COMP_WORDBREAKS == *:* && -n $colons ]]; then
                    value=${value#"$colons"}
                fi
                COMPREPLY+=("$value")
                ;;
        esac
    done < <(COMP_LINE=${COMP_LINE:0:$COMP_POINT} %(complete_var)s=bash_complete "$1" 2>/dev/null)
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/:] ]] && compopt -o nospace
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class LineComplete(BashComplete):
    """Completion for bash that reads the line, and not bash's own words."""

    name: ClassVar[str] = "bash"
    source_template: ClassVar[str] = _BASH

    @staticmethod
    def _check_version() -> None:
        """Accept any bash: the script fails if it needs a newer one."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one that is completed, and the beginning of that one."""
        line = os.environ.get("COMP_LINE", "")
        words = split_arg_string(line)[1:]
        if not words or line[-1:].isspace():
            return words, ""
        return words[:-1], words[-1]

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Return a line for the script."""
        return f"{item.type},{item.value}"


def register() -> None:
    """Let click complete bash's lines by :class:`LineComplete`."""
    add_completion_class(LineComplete)


def script(shell: str, program: Command) -> str:
    """Return the script with which ``shell``, one of :data:`SHELLS`, completes the lines of ``program``."""
    kinds: dict[str, type[ShellComplete]] = {"bash": LineComplete, "zsh": ZshComplete, "fish": FishComplete}
    return kinds[shell](program, {}, PROGRAM, VARIABLE).source()
