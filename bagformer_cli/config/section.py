"""The base class of all sections of a configuration, and the ranges that several keys share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
Layers = Annotated[int, Field(ge=1, le=1000)]
Width = Annotated[int, Field(ge=1, le=65536)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Above0 = Annotated[float, Field(gt=0)]
Channels = tuple[Share, Share, Share]
Spreads = tuple[Above0, Above0, Above0]


class Section(BaseModel):
    """Base of all sections. Unknown keys are errors; values are checked whenever they are set."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)
