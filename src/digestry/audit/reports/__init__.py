"""An audit's report in the forms in which people and programs read it. Nothing here prints.

One module a format (``to_table``, ``to_json`` …), each of which yields text in pieces, so that a report of
any length can be written as it is made. Untrusted text has no effect in any format: control and formatting
characters are escaped in all of them, and each escapes the syntax of its own format.
"""

from __future__ import annotations

from digestry.audit.reports.values import as_values
from digestry.audit.reports.words import summary

__all__ = ["as_values", "summary"]
