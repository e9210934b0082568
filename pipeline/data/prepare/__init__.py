"""From the layout users download to ours.

Photos, label maps in class indices, splits, and a manifest that says it all.
"""

from __future__ import annotations

from pipeline.data.prepare.own import OwnLayout
from pipeline.data.prepare.run import Prepared, prepare

__all__ = ["OwnLayout", "Prepared", "prepare"]
