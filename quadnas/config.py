"""YAML files -> frozen, validated models; an error names the file, the key and the nearest valid one."""

import re
import reprlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from quadnas.errors import ConfigError
from quadnas.registry import did_you_mean

MAX_BYTES = 1_000_000
MAX_DEPTH = 20


class Settings(BaseModel):
    """Base of everything read from a user's file: keyword-only, frozen, no unknown keys, no silent casts."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=Settings)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 safe loader without aliases, tags and duplicate keys, which reads 1e-3 as a number."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed", event.start_mark)
        if getattr(event, "tag", None):
            raise yaml.constructor.ConstructorError(None, None, "tags are not allowed", event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.constructor.ConstructorError(
                None, None, f"nested deeper than {MAX_DEPTH} levels", event.start_mark
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                break  # refused below
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what ``_Loader`` would read as a number."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )


def parse_yaml(text: str, source: str) -> Any:
    """Plain data from YAML text; ``source`` names it in errors. Raises ConfigError."""
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{source}: larger than {MAX_BYTES} bytes, which no settings file needs")
    try:
        # _Loader is a SafeLoader
        return yaml.load(text, _Loader)  # noqa: S506
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not a valid YAML file: {_yaml_reason(error)}") from None


def _yaml_reason(error: Exception) -> str:
    """What is wrong and in which line, without the parser's picture of it."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem is None or mark is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def read_text(path: Path) -> str:
    """The text of a user's file; raises ConfigError if it is missing, unreadable or not UTF-8."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes, which no settings file needs")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"cannot read {path}: {reason}") from None


def read_settings(path: Path, model: type[S]) -> S:
    """Read and validate one YAML file as ``model``; raises ConfigError naming file and key."""
    return validated(parse_yaml(read_text(path), str(path)), model, str(path))


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML file whose top level must be keys; raises ConfigError."""
    data = parse_yaml(read_text(path), str(path))
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(f"{path}: expected keys with values, such as 'device: cortexA76'")
    return data


def overlaid(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``below`` with the values of ``above``; nested mappings are merged key by key."""
    merged = dict(below)
    for key, value in above.items():
        lower = merged.get(key)
        merged[key] = overlaid(lower, value) if isinstance(lower, dict) and isinstance(value, dict) else value
    return merged


def validated(data: Any, model: type[S], source: str) -> S:
    """Validate plain data as ``model``; raises ConfigError naming ``source`` and every offending key."""
    try:
        return model.model_validate(_tuples(data))
    except ValidationError as error:
        problems = "; ".join(_explain(item, model) for item in error.errors())
        raise ConfigError(f"{source}: {problems}") from None


def write_yaml(settings: Settings) -> str:
    """YAML text that ``read_settings`` reads back to an equal model; keys keep their declared order."""
    data = settings.model_dump(mode="json", exclude_none=True)
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=110, default_flow_style=None)


def _tuples(data: Any) -> Any:
    """Lists as tuples: frozen models hold tuples, and strict validation takes nothing else for them."""
    if isinstance(data, dict):
        return {key: _tuples(value) for key, value in data.items()}
    return tuple(_tuples(item) for item in data) if isinstance(data, list) else data


def _explain(item: Any, model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "the file"
    if item["type"] == "extra_forbidden":
        allowed = _fields_at(model, item["loc"][:-1])
        return f"unknown key {where!r}" + (
            f"; {did_you_mean(str(item['loc'][-1]), allowed)}" if allowed else ""
        )
    if item["type"] == "missing":
        return f"the key {where!r} is missing"
    message = f"{where}: {item['msg'].removeprefix('Value error, ')}"
    if item["type"] == "value_error" and isinstance(item["input"], dict | tuple):
        return message  # a rule over several values names those that break it
    return f"{message}, not {reprlib.repr(item['input']):.80}"


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys of the model at a location, following nested models and tuples of models."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            annotation: Any = model.model_fields[part].annotation
            nested = [annotation, *getattr(annotation, "__args__", ())]
            models = [t for t in nested if isinstance(t, type) and issubclass(t, BaseModel)]
            if not models:
                return []
            model = models[0]
    return list(model.model_fields)
