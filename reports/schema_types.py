"""Types of the fields of ``results.json``, and what is said of a value that breaks one.

Every check but those of whole curves and sections runs in pydantic's compiled core: a file of
1,000 clients has some 100,000 numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    Strict,
    model_validator,
)
from pydantic_core import CoreSchema, ErrorDetails, core_schema


@dataclass(frozen=True)
class Wording:
    """Say ``sentence`` of whatever is wrong with a value, in place of pydantic's own words."""

    sentence: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.custom_error_schema(
            handler(source), "contract", custom_error_message=self.sentence
        )


def _rising(curve: list[tuple[int, float | None]]) -> list[tuple[int, float | None]]:
    if any(before >= after for (before, _), (after, _) in pairwise(curve)):
        raise ValueError("the epochs do not rise")
    return curve


def _triangle(rows: list[list[float]]) -> list[list[float]]:
    if any(len(row) != place for place, row in enumerate(rows, start=1)):
        raise ValueError("a row has another length")
    return rows


Number = Annotated[float, Wording("must be a number")]
MaybeNumber = Annotated[float | None, Wording("must be a number or null")]
Count = Annotated[int, Field(ge=0), Wording("must be a whole number, 0 or more")]
Unit = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[Unit, Wording("must be a fraction in 0..1")]
MaybeFraction = Annotated[Unit | None, Wording("must be null or a fraction in 0..1")]
MaybeSigned = Annotated[  # a difference of two fractions
    Annotated[float, Field(ge=-1, le=1)] | None, Wording("must be null or a number in -1..1")
]
Point = Annotated[tuple[Annotated[int, Field(ge=0)], float | None], Strict(False)]
Curve = Annotated[
    list[Point],
    AfterValidator(_rising),
    Wording("must be a list of [epoch, number] with rising epochs"),
]
Triangle = Annotated[
    list[list[Unit]],
    AfterValidator(_triangle),
    Wording("must be rows of 1, 2, 3... fractions in 0..1"),
]
Object = dict[str, Any]


class Section(BaseModel):
    """An object of the file: declared fields are checked, further ones are any JSON."""

    model_config = ConfigDict(
        extra="allow",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        serialize_by_alias=True,
        defer_build=True,
    )

    def problems(self) -> Iterable[str]:
        """What breaks the rules across fields, each ``FIELD: sentence``."""
        return ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if problems := "\n".join(self.problems()):
            raise ValueError(problems)
        return self


TYPES = {"model": "an object", "dict": "an object", "list": "a list", "string": "a text"}


def error_lines(error: ErrorDetails) -> list[str]:
    """The error as lines ``path: what is wrong``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    path = "".join(parts).removeprefix(".")
    if error["type"] == "missing":
        return [f"{path}: missing"]
    if error["type"] == "value_error":  # of ``problems``
        sentences = str(error["ctx"]["error"]).splitlines()
        return [f"{path}.{each}".removeprefix(".") for each in sentences]
    expected = TYPES.get(error["type"].removesuffix("_type"))
    words = f"must be {expected}" if expected else error["msg"]
    return [f"{path or 'the file'}: {words}, is {repr(error['input'])[:200]}"]
