# SPDX-License-Identifier: Apache-2.0
"""What the generated builders have in common."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from auditspan.schema import names

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:  # it is for type checkers; typing has it from Python 3.11 on

    def dataclass_transform(**said):
        return lambda decorated: decorated


_REQUIRED: Final = object()


UNKNOWN: Final = "unknown"
"""What is not known is said, never left out."""

WITHHELD: Final = "(withheld)"
"""Stands where a record must have an attribute whose value the privacy policy does not allow."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Details:
    """What a record of one event type says beyond what every record says.

    Use the class of the event type (:mod:`auditspan.schema.events`): its required attributes are required arguments.
    To a type checker these are frozen dataclasses. They are not made as such, because that compiles code for each class
    and would be the largest part of what it costs to start an audited process.
    """

    TYPE: ClassVar[names.EventType]
    NAMES: ClassVar[dict[str, str]]
    """Field of the builder → attribute of the record."""
    _FIELDS: ClassVar[dict[str, Any]]

    action: str

    def __init_subclass__(cls) -> None:
        """Find the fields: what is annotated and no class variable."""
        fields = [name for name, kind in cls.__annotations__.items() if not str(kind).startswith("ClassVar")]
        cls._FIELDS = {name: cls.__dict__.get(name, _REQUIRED) for name in fields}

    def __init__(self, **given: Any) -> None:
        """Make one.

        Raises:
            TypeError: a required argument is missing, or one is not known.
        """
        values = {**self._FIELDS, **given}
        if len(values) != len(self._FIELDS):
            unknown = ", ".join(sorted(given.keys() - self._FIELDS.keys()))
            raise TypeError(f"{type(self).__name__} got unexpected arguments: {unknown}")
        if _REQUIRED in values.values():
            lacking = ", ".join(name for name, value in values.items() if value is _REQUIRED)
            raise TypeError(f"{type(self).__name__} is missing required arguments: {lacking}")
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: what happened does not change."""
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __eq__(self, other: object) -> bool:
        """Compare type and fields."""
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # fields may be lists

    def __repr__(self) -> str:
        """Name type and fields."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"

    def attributes(self) -> dict[str, Any]:
        """Return the attributes; what is None is left out."""
        values = self.__dict__
        found: dict[str, Any] = {names.EVENT_TYPE: self.TYPE._value_, names.ACTION: values["action"]}
        for field, name in self.NAMES.items():
            value = values[field]
            if value is not None:
                found[name] = value.value if isinstance(value, Enum) else value
        return found
