"""Publishable tables: a specification (YAML), a model, and one renderer a format."""

from analysis.tables.build import build_table
from analysis.tables.model import Column, Row, Table, TableCell
from analysis.tables.render import FORMATS, render
from analysis.tables.spec import TableSpec, load_spec, shipped_specs

__all__ = [
    "FORMATS",
    "Column",
    "Row",
    "Table",
    "TableCell",
    "TableSpec",
    "build_table",
    "load_spec",
    "render",
    "shipped_specs",
]
