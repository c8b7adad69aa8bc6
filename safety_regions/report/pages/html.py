"""Plain pages: a title, paragraphs and tables in one file that needs nothing else; everything is escaped."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

CSS = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; }
body { max-width: 75rem; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
p { max-width: 48rem; }
table { border-collapse: collapse; margin: 1rem 0; }
caption { text-align: left; color: #555; padding-bottom: .4rem; }
table { display: block; overflow-x: auto; }
th, td { padding: .25rem .8rem; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #1b1b1b; }
td { border-bottom: 1px solid #ddd; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { background: #f2f2f2; padding: 0 .25rem; }
dt { font-weight: 600; margin-top: .5rem; } dd { margin-left: 1.5rem; }
"""


def page(title: str, *parts: str) -> str:
    """A whole HTML page of ``parts`` made by the functions below."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{CSS}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def facts(items: Mapping[str, Sequence[str]]) -> str:
    """A list of terms, each with its values, a line each."""
    rows = []
    for term, values in items.items():
        rows += [f"<dt>{escape(term)}</dt>", *(f"<dd>{escape(value)}</dd>" for value in values)]
    return "<dl>\n" + "\n".join(rows) + "\n</dl>"


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[str] = (), caption: str = ""
) -> str:
    """A table of texts; the columns named in ``numbers`` stand to the right."""
    right = set(numbers)
    kinds = [' class="number"' if name in right else "" for name in header]
    lines = ["<table>", f"<caption>{escape(caption)}</caption>" if caption else ""]
    lines += [_row("th", header, kinds), *(_row("td", row, kinds) for row in rows), "</table>"]
    return "\n".join(line for line in lines if line)


def _row(tag: str, cells: Sequence[str], kinds: Sequence[str]) -> str:
    shown = (f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))
    return f"<tr>{''.join(shown)}</tr>"
