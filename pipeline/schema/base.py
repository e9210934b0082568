"""The one base of every config section: frozen, strict, without defaults.

Defaults live in `pipeline/conf/*.yaml` alone; a section that leaves out a field, or adds one, is an error.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen config section. `1`, `1.0` and `true` are told apart (strict), unknown keys are refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)
