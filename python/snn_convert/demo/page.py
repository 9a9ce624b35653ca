"""Small pieces of HTML: a page with its own style, tables, figures. Nothing is loaded from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

__all__ = ["facts", "figure", "page", "paragraph", "section", "table"]

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; color: #1f2328; background: #ffffff;
       max-width: 62rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.8rem; line-height: 1.25; margin-bottom: 0.3rem; }
h2 { font-size: 1.3rem; margin-top: 2.6rem; border-bottom: 1px solid #d0d7de; padding-bottom: 0.3rem; }
p, li { max-width: 48rem; }
.note { color: #57606a; font-size: 0.92rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.93rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.75rem; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #8c959f; vertical-align: bottom; }
td { border-bottom: 1px solid #e4e8ec; }
th.text, td.text { text-align: left; }
tr.group td { border-top: 2px solid #8c959f; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1.2rem; margin: 1rem 0; }
dt { color: #57606a; } dd { margin: 0; }
figure { margin: 1.2rem 0; } img { max-width: 100%; height: auto; }
figcaption { color: #57606a; font-size: 0.92rem; max-width: 48rem; }
"""


def paragraph(text: str, kind: str = "") -> str:
    """One paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def section(title: str, *parts: str) -> str:
    """A heading and what follows it."""
    return "\n".join((f"<h2>{escape(title)}</h2>", *parts))


def figure(png: bytes, caption: str) -> str:
    """A picture, embedded in the page."""
    data = base64.b64encode(png).decode()
    text = escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def facts(values: Mapping[str, str]) -> str:
    """Names and values, one pair a line."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in values.items()) + "</dl>"


def table(head: Sequence[str], groups: Iterable[Sequence[Sequence[str]]], text_columns: int = 1) -> str:
    """A table whose first ``text_columns`` columns are words; a rule is drawn between groups of rows."""

    def cells(tag: str, values: Sequence[str]) -> str:
        kinds = [' class="text"' if i < text_columns else "" for i in range(len(values))]
        return "".join(f"<{tag}{kind}>{escape(value)}</{tag}>" for kind, value in zip(kinds, values))

    body = []
    for group in groups:
        for i, row in enumerate(group):
            kind = ' class="group"' if i == 0 and body else ""
            body.append(f"<tr{kind}>{cells('td', row)}</tr>")
    head_row, rows = cells("th", head), "\n".join(body)
    return f'<div class="scroll"><table><thead><tr>{head_row}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>'


def page(title: str, *parts: str) -> str:
    """A whole document."""
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
            f"<h1>{escape(title)}</h1>",
            *parts,
            "</body>\n</html>\n",
        )
    )
