"""What a model writes is drawn as Markdown only."""

import pytest

from clients.playground.markdown import original, without_html


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a <b>x</b> & **y**", "a &lt;b>x&lt;/b> &amp; **y**"),
        ("![p](u) [l](u)", "!&#91;p](u) [l](u)"),
        ("> quoted\n&lt;", "> quoted\n&amp;lt;"),
        ("`<b>` x <i>", "`<b>` x &lt;i>"),
        ("`` ` <b> `` <c>", "`` ` <b> `` &lt;c>"),
        ("text\n```py\n<a>\n```\n<b>", "text\n```py\n<a>\n```\n&lt;b>"),
        ("```\n<a> while it streams", "```\n<a> while it streams"),
        ("\\`<b>x</b>\\`", "\\`&lt;b>x&lt;/b>\\`"),
        ("`a\n\n<b>`", "`a\n\n&lt;b>`"),
    ],
)
def test_html_and_pictures_are_text_and_code_stays(text: str, shown: str) -> None:
    assert without_html(text) == shown
    assert original(shown) == text
