"""The report of a result: report.md, to be read as text, and report.html, a page that opens without a network.

Both hold the same tables, and say "not measured" where nothing was. Everything in them comes from the result.
"""

from benchmarks.report.markdown import markdown
from benchmarks.report.page import html

__all__ = ["html", "markdown"]
