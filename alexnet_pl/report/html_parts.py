"""The frame of an HTML page, and its tables. Every text from a run is escaped."""

from __future__ import annotations

from html import escape

from alexnet_pl.report.tables import Table

STYLE = """
body { margin: 0; background: #fff; color: #1b1b1b; font: 16px/1.5 system-ui, sans-serif }
main { max-width: 1160px; margin: 2rem auto; padding: 0 1rem; overflow-wrap: break-word }
h1 { font-size: 1.7rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #ddd }
tr.panel th { background: #f2f5f8; padding-top: .6rem }
table.numbers td + td { white-space: nowrap }
table.plain { font-size: .8rem } td:first-child { overflow-wrap: anywhere; min-width: 12rem }
small { display: block; color: #555; white-space: nowrap } .small { color: #555; font-size: .88rem }
.wide { overflow-x: auto } dt { font-weight: 600 } dd { margin: 0 0 .5rem 1.2rem }
.box { background: #fff3e0; border-left: 5px solid #d55e00; padding: .7rem 1rem; overflow-wrap: anywhere }
"""


def make_page(title: str, body: str) -> str:
    """Return one HTML file around a body."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>
<h1>{escape(title)}</h1>
{body}
</main></body></html>
"""


def make_row(cells: list[str], tag: str = "td") -> str:
    """Return a row of a table. The text after a cell's line break is small print."""
    parts = [escape(cell).partition("\n") for cell in cells]
    return "<tr>" + "".join(f"<{tag}>{text}<small>{small}</small></{tag}>" for text, _, small in parts) + "</tr>"


def make_report_table(table: Table) -> str:
    """Return a report's table under its title, with a row above each section and its note below."""
    rows = []
    for title, members in table.sections:
        rows.append(f'<tr class="panel"><th colspan="{len(table.heads)}">{escape(title)}</th></tr>')
        rows += map(make_row, members)
    return f"""<h2>{escape(table.title)}</h2>
{make_table(table.heads, rows, "numbers")}
<p class="small">{escape(table.note)}</p>
"""


def make_table(heads: list[str], rows: list[str], kind: str = "") -> str:
    """Return a table of rows, which can be scrolled if it is wide. Its kind is one of STYLE's."""
    style = f' class="{kind}"' if kind else ""
    return f'<div class="wide"><table{style}>{make_row(heads, "th")}{"".join(rows)}</table></div>'
