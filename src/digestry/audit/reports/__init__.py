"""An audit's report in the forms in which people and programs read it. Nothing here prints.

One module a format (``to_table``, ``to_json`` …), each of which gives text in pieces, so that a
report of any length can be written as it is made. No format lets a stranger's text do anything:
control and formatting characters are escaped in all of them, and each escapes what its own readers
would obey.
"""

from __future__ import annotations

from digestry.audit.reports.values import as_values
from digestry.audit.reports.words import summary

__all__ = ["as_values", "summary"]
