"""Declaration of settings and of the keys of TOML files, as dataclasses."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from mvemo.manifests.errors import BadOption
from mvemo.manifests.plugins import offered

T = TypeVar("T")
# Largest value of a setting.
LARGEST = 1e10
_LIMITS = {"ge": "{ge:.12g} or more", "gt": "above {gt:.12g}"}
_LIMITS |= {"le": "at most {le:.12g}", "lt": "below {lt:.12g}"}


@dataclass(frozen=True)
class Allowed:
    """Allowed values of a setting: a range of numbers, or a list of names.

    `plugins` is the kind of plug-ins whose names are allowed, too.
    """

    ge: float = -math.inf
    gt: float = -math.inf
    le: float = math.inf
    lt: float = math.inf
    names: Sequence[str] = ()
    plugins: str = ""

    def __contains__(self, value: Any) -> bool:
        if self.names:
            return value in offered(self.names, self.plugins)
        return not isinstance(value, (int, float)) or (
            self.ge <= value <= self.le and self.gt < value < self.lt
        )

    def __str__(self) -> str:
        """Return the allowed values as text."""
        if self.names:
            return f"one of {', '.join(offered(self.names, self.plugins))}"
        limits = {n: v for n, v in vars(self).items() if n in _LIMITS and math.isfinite(v)}
        both: dict[tuple[str, ...], str] = {("ge", "le"): "from {ge:.12g} to {le:.12g}"}
        both["ge", "lt"] = "at least {ge:g} and below {lt:g}"
        words = both.get((*limits,)) or " and ".join(map(_LIMITS.__getitem__, limits))
        return words.format(**limits)


def setting(default: Any, meaning: str = "", *, profile: bool = True, **allowed: Any) -> Any:
    """Return a field of a dataclass of settings; `default` may be the class of nested settings.

    `meaning` is its text in docs/settings.md; `profile` is False if profiles must not set it.
    """
    metadata = {"meaning": meaning, "allowed": Allowed(**allowed), "profile": profile}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def profile_fields(settings: Any) -> Iterator[tuple[Field[Any], Any]]:
    """Yield field and value of each setting that a profile may set, nested settings included."""
    for each in fields(settings):
        value = getattr(settings, each.name)
        if is_dataclass(value):
            yield from profile_fields(value)
        elif each.metadata.get("profile", True) and each.name != "name":
            yield each, value


def check_settings(settings: Any) -> None:
    """Raise `BadOption` for the first field whose value is not allowed."""
    for each in fields(settings):
        value, allowed = getattr(settings, each.name), each.metadata.get("allowed")
        if allowed is None or value in allowed:
            continue
        if allowed.names:
            raise BadOption(f"{each.name}: expected {allowed}, got {value!r}")
        raise BadOption(f"{each.name} is {value}: it must be {allowed}")


_NOUNS = {str: "a string", int: "an integer", bool: "true or false", float: "a number"}


def from_table(kind: Any, stated: Any, place: str = "") -> Any:
    """Return a dataclass filled from a TOML table; raise `BadOption` for a wrong key.

    A single value stands for a tuple of it, and a text for a dataclass with this first field.
    Fields with the metadata ``key=False`` cannot be stated. `place` is the table's key.
    """
    if isinstance(stated, str):
        stated = {fields(kind)[0].name: stated}
    known = [each for each in fields(kind) if each.metadata.get("key", True)]
    hints, values = get_type_hints(kind), {}
    for key, value in _table(stated, place).items():
        here = f"{place}.{key}" if place else key
        if key not in [each.name for each in known]:
            listing = ", ".join(each.name for each in known)
            raise BadOption(f"unknown key {here}; expected one of {listing}")
        values[key] = _converted(hints[key], value, here)
    for each in known:
        if each.name not in values and each.default is each.default_factory is MISSING:
            raise BadOption(f"{place and place + ': '}the key {each.name} is missing")
    return kind(**values)


def fill(settings: T, table: Mapping[str, Any], place: str) -> T:
    """Return settings with the values of a table; raise `BadOption` for a wrong key or value.

    The keys of nested settings are in the same table, a table is merged into a default table, and
    a text with commas is a list. `place` is the key of the table.
    """
    known = [each.name for each, _ in profile_fields(settings)]
    for name in table:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise BadOption(f"{place}.{name}: unknown setting; expected one of {listed}")
    return _filled(settings, table, place)


def _filled(settings: T, table: Mapping[str, Any], place: str) -> T:
    kind: Any = type(settings)
    hints, values = get_type_hints(kind), dict[str, Any]()
    for each in fields(kind):
        default, here = getattr(settings, each.name), f"{place}.{each.name}"
        if is_dataclass(default):
            values[each.name] = _filled(default, table, place)
        elif each.name in table:
            value = table[each.name]
            if isinstance(default, tuple):
                value = split_names(value)
            if isinstance(value, (int, float)) and abs(value) > LARGEST:
                raise BadOption(f"{here}: expected a number of at most {LARGEST:g}, got {value:g}")
            value = _converted(hints[each.name], value, here)
            values[each.name] = {**default, **value} if isinstance(default, Mapping) else value
    try:
        new: T = replace(settings, **values)  # type: ignore[type-var]
    except ValueError as error:
        # The messages of settings start with the name of a setting.
        raise BadOption(f"{place}.{error}") from None
    return new


def split_names(value: Any) -> Any:
    """Return the names in a text with commas as a list; any other value as it is."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _table(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadOption(f"{place}: expected a table, got {value!r}")
    return value


def _converted(hint: Any, value: Any, place: str) -> Any:
    """Convert a TOML value to the type of a field."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple:
        entries = value if isinstance(value, list) else [value]
        return tuple(_converted(args[0], v, f"{place}[{i}]") for i, v in enumerate(entries))
    if origin is Mapping:
        table = _table(value, place)
        return {key: _converted(args[1], v, f"{place}.{key}") for key, v in table.items()}
    kinds: tuple[Any, ...] = (str,) if origin is Literal else args or (hint,)
    if nested := [kind for kind in kinds if is_dataclass(kind)]:
        return from_table(nested[0], value, place)
    if hint is Any or type(value) in kinds or (str in kinds and isinstance(value, str)):
        return value
    if type(value) is int and float in kinds:
        return float(value)
    nouns = " or ".join(_NOUNS[kind] for kind in kinds if kind in _NOUNS)
    raise BadOption(f"{place}: expected {nouns}, got {value!r}")
