"""The report of a result: report.md, to be read as text, and report.html, a page that opens without a network.

Both hold the same tables, and say "not measured" where nothing was. Everything in them is in the result: a report
measures nothing and judges nothing.
"""

from benchmarks.report.page import html
from benchmarks.report.text import markdown

__all__ = ["html", "markdown"]
