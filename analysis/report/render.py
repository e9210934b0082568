"""From the page's data to one HTML file: template with autoescape, inline assets, a policy that forbids everything else."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from pathlib import Path

from analysis.report.page import Page
from pipeline.errors import UserError
from pipeline.pages.style import BASE

ASSETS = Path(__file__).with_name("assets")
MAX_BYTES = 20_000_000


def render_html(page: Page) -> str:
    """The whole report. Raises UserError when it would exceed 20 MB.

    The file's own security policy allows exactly its two inline assets by their hashes and data URIs as images: even a name
    that slipped through the escaping could neither run nor load anything.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    style = BASE.read_text() + (ASSETS / "report.css").read_text() + _arm_rules(page)
    script = (ASSETS / "report.js").read_text()
    reference = next((row.arm for row in page.dots.rows if row.reference), None) if page.dots else None
    data = {
        "labels": page.labels,
        "classes": page.arm_classes,
        "reference": reference,
        "curves": page.curves,
        "comparer": None if page.comparer is None else dataclasses.asdict(page.comparer),
    }
    html = environment.get_template("report.html.j2").render(
        page=dataclasses.replace(page, table_html=Markup(page.table_html)),  # escaped by its renderer
        style=Markup(style),
        script=Markup(script),
        style_hash=source_hash(style),
        script_hash=source_hash(script),
        data=data,
    )
    size = len(html.encode())
    if size > MAX_BYTES:
        raise UserError(f"the report would be {size / 1e6:.1f} MB, more than 20 MB: show fewer inputs (--rows)")
    return html


def source_hash(source: str) -> str:
    """The policy's name of an inline script or style: sha256 of its text, base64."""
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def _arm_rules(page: Page) -> str:
    """A colour variable a class of arm, for both themes; classes are a0, a1, ..., never names."""
    light = "".join(f".{name}{{--arm:{colour}}}" for name, colour, _ in page.arm_colours)
    dark = "".join(f".{name}{{--arm:{colour}}}" for name, _, colour in page.arm_colours)
    return f"{light}\n@media screen and (prefers-color-scheme: dark){{{dark}}}\n"
