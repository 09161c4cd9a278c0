"""What all sections of settings are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, le=10**9)]
"""Of steps, questions, tokens or files."""


class Section(BaseModel):
    """A group of settings: immutable, no unknown keys, no silent conversion ("60" is not 60)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
