"""A verifier that parses the text as JSON and validates it against a caller's JSON Schema.

A schema is a program: it can fetch, loop, multiply its own work and run regular expressions. So it is confined.

* A reference points to a subschema of the same document with a JSON pointer ("#/$defs/node"). Nothing is ever fetched.
  Anchors are refused, because the library searches the whole document for each use of one.
* ``$schema`` and ``$id`` are allowed at the top only. For a nested ``$schema`` jsonschema would use its stock
  validator, and none of these rules would hold there.
* Patterns are ECMA-262's and run on RE2. ``unevaluatedProperties`` together with ``patternProperties`` is refused,
  because jsonschema matches those patterns itself, with backtracking.
* The number of steps that a check takes is bounded, however the schema multiplies them.

``format`` is an annotation and asserts nothing.
"""

import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar, Literal

from jsonschema import (
    Draft6Validator,
    Draft7Validator,
    Draft201909Validator,
    Draft202012Validator,
    SchemaError,
    ValidationError,
)
from jsonschema.validators import extend
from referencing import Registry, Resource, Specification
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT6, DRAFT7, DRAFT201909, DRAFT202012

from service.constraints.algebra import Constraint, Json
from service.evaluators.base import Check, RefusedField, Verifier
from service.evaluators.text.bounds import Bounds
from service.evaluators.text.documents import (
    REPLY_WITH_JSON,
    bare_document,
    extract_document,
    is_multiple,
    is_no_document,
    json_document,
    make_exact,
    unwrap,
)
from service.evaluators.text.patterns import LinearPattern, SearchTooLarge, compile_linear, spend
from service.evaluators.text.regex import MAX_TEXT
from service.evaluators.text.words import excerpt
from service.expressions import parse, to_re2

MAX_SCHEMA = 32_768
"""Characters of the schema, as JSON."""
MAX_PATTERNS = 100
MAX_STEPS = 50_000
"""Keywords applied in one check. Long strings and messages count for more. At most about two seconds of work."""
PATTERN_COST_OF_STEP = 4_000
"""The cost of a search (see LinearPattern) that counts as one step."""
MAX_ISSUES = 10
MAX_MESSAGE = 300


class _OutOfSteps(Exception):
    pass


_TOO_MUCH = (_OutOfSteps, SearchTooLarge, RecursionError, ArithmeticError)


@dataclass
class _Run:
    """One check: the schema's compiled patterns, and the steps that are left."""

    patterns: Mapping[str, LinearPattern]
    steps: int = MAX_STEPS

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise _OutOfSteps

    def matches(self, pattern: str, text: str) -> bool:
        compiled = self.patterns[pattern]
        self.spend(1 + compiled.cost(text) // PATTERN_COST_OF_STEP)
        return compiled.search(text) is not None


_RUN: ContextVar[_Run] = ContextVar("run")
"""A context variable, because jsonschema calls keywords as functions to which we cannot pass state."""


def _pattern(validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _RUN.get().matches(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, subschemas: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for pattern, subschema in subschemas.items():
            for name, value in instance.items():
                if _RUN.get().matches(pattern, name):
                    yield from validator.descend(value, subschema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, subschema: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    run, patterns = _RUN.get(), schema.get("patternProperties", ())
    names = [name for name in instance if name not in schema.get("properties", ())]
    extras = [name for name in names if not any(run.matches(pattern, name) for pattern in patterns)]
    if subschema is False and extras:
        yield ValidationError(f"unexpected: {', '.join(map(repr, extras))}")
    elif subschema is not False:
        for name in extras:
            yield from validator.descend(instance[name], subschema, path=name)


def _unique_items(validator: Any, wanted: bool, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    """In linear time. jsonschema's own takes quadratic time if the items cannot be sorted."""
    if wanted and isinstance(instance, list) and len(set(map(_canonical_form, instance))) < len(instance):
        yield ValidationError("two items are equal")


def _multiple_of(validator: Any, unit: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "number"):
        _RUN.get().spend(len(str(instance)) // 50)
        if not is_multiple(instance, unit):
            yield ValidationError(f"{instance!r} is not a multiple of {unit!r}")


def _is_integer(_checker: Any, instance: Any) -> bool:
    if isinstance(instance, Decimal):
        return instance == instance.to_integral_value()
    return isinstance(instance, int) and not isinstance(instance, bool)


def _canonical_form(value: Any) -> Hashable:
    """A value that equals another exactly if they are equal in JSON: 1 equals 1.0 but not true."""
    match value:
        case dict():
            return frozenset((name, _canonical_form(item)) for name, item in value.items())
        case list():
            return tuple(map(_canonical_form, value))
        case bool():
            return bool, value
        case _:
            return value  # type: ignore[no-any-return]


def _meter(keyword: Callable[..., Any]) -> Callable[..., Iterator[ValidationError]]:
    """Make a keyword pay for its steps. It may look at each member of its own value, so those count. An error's message
    quotes the wrong value, perhaps the whole text, so its length counts too."""

    def apply(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        run = _RUN.get()
        run.spend(1 + (len(value) if isinstance(value, list | dict) else 0))
        for error in keyword(validator, value, instance, schema) or ():
            run.spend(len(error.message) // 100)
            yield error

    return apply


def _confine(stock: Any) -> Any:
    own = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
        "multipleOf": _multiple_of,
    }
    keywords = {**stock.VALIDATORS, **own}
    metered = {name: _meter(keyword) for name, keyword in keywords.items()}
    types = stock.TYPE_CHECKER.redefine("integer", _is_integer)
    return extend(stock, metered, type_checker=types)  # type: ignore[no-untyped-call]


_DIALECTS: Mapping[str, tuple[Any, Specification[Any]]] = {
    "https://json-schema.org/draft/2020-12/schema": (_confine(Draft202012Validator), DRAFT202012),
    "https://json-schema.org/draft/2019-09/schema": (_confine(Draft201909Validator), DRAFT201909),
    "http://json-schema.org/draft-07/schema": (_confine(Draft7Validator), DRAFT7),
    "http://json-schema.org/draft-06/schema": (_confine(Draft6Validator), DRAFT6),
}
MAX_SUBSCHEMAS = 2000
SUBSCHEMA_WORK = 150
"""Microseconds that it takes to validate one against the metaschema."""
_DEFAULT_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


@dataclass(frozen=True, kw_only=True)
class FollowsSchema(Verifier):
    """Whether the text is JSON that is valid under the schema, of draft 2020-12 unless ``$schema`` names an older one.

    The score is 0 if the text is not JSON, else 1 / (1 + violations). At most ten violations are looked for.
    """

    in_thread: ClassVar[bool] = True

    type: Literal["json_schema"] = "json_schema"
    schema: dict[str, Any]

    def __post_init__(self) -> None:
        try:
            _ = self._compiled
        except RecursionError:
            raise RefusedField("schema", "nested too deeply") from None
        except ValueError as error:
            raise RefusedField("schema", str(error)) from None

    @cached_property
    def _compiled(self) -> tuple[Any, Mapping[str, LinearPattern]]:
        return _compile(self.schema)

    def constraints(self) -> Sequence[Constraint]:
        return [Constraint("json_schema.schema", Json(self.schema))]

    def check(self, text: str) -> Sequence[Check]:
        if len(text) > MAX_TEXT:
            fault = Bounds(max=MAX_TEXT).verdict(len(text), "characters")
            return [Check("json", 0.0, fault, "Reply with less JSON.")]
        try:
            document = json_document(text)
        except ValueError as error:
            return [Check("json", 0.0, str(error), REPLY_WITH_JSON)]
        try:
            errors = self._find_errors(document, MAX_ISSUES)
        except _TOO_MUCH:
            return [Check("schema", 0.0, "the JSON is too large or too deep to check", "Reply with less JSON.")]
        score = 1 / (1 + len(errors))
        return [
            Check("schema", score, excerpt(f"{error.json_path}: {error.message}", MAX_MESSAGE), _order(error))
            for error in errors
        ] or [Check("schema", 1.0, "", REPLY_WITH_JSON)]

    def is_broken(self, beginning: str) -> bool:
        """Only the syntax counts."""
        return len(beginning) <= MAX_TEXT and is_no_document(beginning)

    def repair(self, text: str) -> str | None:
        return extract_document(text) if len(text) <= MAX_TEXT else None

    def unwrap(self, text: str) -> str:
        """The text without a Markdown fence around it."""
        return unwrap(text)

    def misfit(self, text: str) -> str | None:
        """Why a text, without a fence, is not valid JSON under the schema. None if it is, or is too large to check."""
        try:
            document = bare_document(text)
            errors = self._find_errors(document, 1) if len(text) <= MAX_TEXT else []
        except _TOO_MUCH:
            return None
        except ValueError as error:
            return str(error)
        return excerpt(f"{errors[0].json_path}: {errors[0].message}", MAX_MESSAGE) if errors else None

    def _find_errors(self, document: Any, most: int) -> list[ValidationError]:
        validator, patterns = self._compiled
        token = _RUN.set(_Run(patterns))
        try:
            return list(islice(validator.iter_errors(document), most))
        finally:
            _RUN.reset(token)


def _order(error: ValidationError) -> str:
    if error.validator is None:  # the schema ``false``, which nothing fits
        return "Leave out of the JSON what its schema forbids."
    rule = json.dumps({error.validator: error.validator_value}, ensure_ascii=False, default=float)
    return excerpt(f"In the JSON, {error.json_path} must fit the schema {rule}", MAX_MESSAGE)


def _count_containers(value: Any) -> int:
    """The number of objects and lists in a value, itself included. It has at most as many subschemas."""
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if members is None else 1 + sum(map(_count_containers, members))


def _compile(schema: dict[str, Any]) -> tuple[Any, Mapping[str, LinearPattern]]:
    """A validator, and the patterns that it needs."""
    try:
        size = len(json.dumps(schema, ensure_ascii=False, allow_nan=False))
    except TypeError as error:
        raise ValueError(f"{error}") from None
    if size > MAX_SCHEMA:
        raise ValueError(f"{size} characters; at most {MAX_SCHEMA} are allowed")
    dialect = str(schema.get("$schema", _DEFAULT_DIALECT)).rstrip("#")
    if dialect not in _DIALECTS:
        raise ValueError(f"$schema must be one of {', '.join(_DIALECTS)}")
    validator, specification = _DIALECTS[dialect]
    if (count := _count_containers(schema)) > MAX_SUBSCHEMAS:
        raise ValueError(f"{count} objects and lists; at most {MAX_SUBSCHEMAS} are allowed")
    spend(count * SUBSCHEMA_WORK)
    root = {name: value for name, value in schema.items() if name not in ("$schema", "$id")}
    try:
        validator.check_schema(root, format_checker=None)
    except SchemaError as error:
        raise ValueError(excerpt(f"{error.json_path}: {error.message}", MAX_MESSAGE)) from None
    return validator(make_exact(root)), _compile_patterns(specification.create_resource(root))


def _compile_patterns(root: Resource[Any]) -> Mapping[str, LinearPattern]:
    """Compile every pattern of the schema. Raises ValueError if it breaks one of the rules at the top of this file."""
    subschemas = [resource.contents for resource in _walk(root) if isinstance(resource.contents, dict)]
    _refuse_strays(root, subschemas)
    patterns: set[str] = set()
    for subschema in subschemas:
        patterns.update(subschema.get("patternProperties", ()))
        if "pattern" in subschema:
            patterns.add(subschema["pattern"])
    if len(patterns) > MAX_PATTERNS:
        raise ValueError(f"{len(patterns)} patterns; at most {MAX_PATTERNS} are allowed")
    return {pattern: _compile_pattern(pattern) for pattern in patterns}


def _compile_pattern(pattern: str) -> LinearPattern:
    try:
        translated = to_re2(parse(pattern))
    except ValueError as error:
        raise ValueError(f"{excerpt(pattern)}: {error}") from None
    return compile_linear(translated, name=pattern)


def _walk(resource: Resource[Any]) -> Iterator[Resource[Any]]:
    yield resource
    for subresource in resource.subresources():
        yield from _walk(subresource)


def _refuse_strays(root: Resource[Any], subschemas: Sequence[Mapping[str, Any]]) -> None:
    known = {id(subschema) for subschema in subschemas}
    resolver = Registry().with_resource("", root).resolver()
    names: set[str] = set()
    for subschema in subschemas:
        names |= subschema.keys()
        for reference in (subschema[name] for name in _REFERENCES if name in subschema):
            try:
                target = resolver.lookup(reference).contents if f"{reference}/".startswith("#/") else None
            except (Unresolvable, TypeError, ValueError):
                target = None
            local = isinstance(target, bool) or id(target) in known
            if not local:
                raise ValueError(f"{excerpt(reference)} does not point to a subschema of this document")
    if nested := names & {"$schema", "$id"}:
        raise ValueError(f"{' and '.join(sorted(nested))} can be used at the top only")
    if names >= {"unevaluatedProperties", "patternProperties"}:
        raise ValueError("unevaluatedProperties and patternProperties cannot be used together")
