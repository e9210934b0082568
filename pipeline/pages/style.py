"""Where the shared style of pages lies."""

from __future__ import annotations

from pathlib import Path

BASE = Path(__file__).with_name(
    "base.css"
)  # colours of both themes, type, controls, cards, the divider between two pictures
