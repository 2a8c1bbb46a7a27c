"""What FHIR R4 says about types, elements, search parameters and codes; the only reader of ``ig/``.

The tables are generated from the ``hl7.fhir.r4.core`` 4.0.1 package by ``ig/generate_r4.py`` and
checked in. A built wheel carries them beside the package, a checkout in ``ig/``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

_T = TypeVar("_T")

OWN_PARAMETERS = ("Person-portal-status",)
"""The guide's search parameters, by their ids."""

_PACKAGE = Path(__file__).resolve().parent.parent


class Element(msgspec.Struct, frozen=True, rename={"is_list": "list"}):
    """One element under its JSON name (FHIR R4 §2.26, ElementDefinition).

    ``type`` is a primitive (``string``), a data type (``HumanName``), a backbone path
    (``Patient.contact``) or ``Resource``. Of a choice, ``deceasedBoolean`` and ``deceasedDateTime``
    are two elements with the ``choice`` ``deceased``; a ``min`` of 1 then asks for one of them.
    ``binding`` is the value set of a required binding. A Reference without ``targets`` may point at
    any type.
    """

    type: str
    is_list: bool = False
    min: int = 0
    choice: str | None = None
    binding: str | None = None
    targets: tuple[str, ...] = ()
    summary: bool = False


class ParameterDefinition(msgspec.Struct, frozen=True):
    """A search parameter as it applies to one type (FHIR R4 §3.1.1, SearchParameter).

    ``expression`` holds only the alternatives that start at that type, casts written ``ofType``.
    """

    code: str
    type: str
    expression: str
    targets: tuple[str, ...]
    url: str


class _ParameterRow(msgspec.Struct, frozen=True):
    type: str
    expression: str
    url: str
    target: tuple[str, ...] = ()


class _Types(msgspec.Struct, frozen=True):
    all: frozenset[str]
    served: tuple[str, ...]
    not_served: tuple[str, ...]


@functools.cache
def structures() -> Mapping[str, Mapping[str, Element]]:
    """Elements by JSON name, for each resource type, data type and backbone path.

    Every type includes what it inherits (``id``, ``meta``, ``extension``, …). The elements stand in
    the order of the definition. Primitive types are not keys, nor is ``Resource``.
    """
    return _read("r4/structures.json", dict[str, dict[str, Element]])


def served_types() -> tuple[str, ...]:
    """The R4 resource types this server offers, sorted: those that have an R4B model."""
    return _types().served


def all_types() -> frozenset[str]:
    """All 146 concrete resource types of FHIR R4."""
    return _types().all


@functools.cache
def search_parameters() -> Mapping[str, Mapping[str, ParameterDefinition]]:
    """The search parameters by type, then code; those of every type under ``Resource``.

    They are R4's, and those of this project's own guide.
    """
    rows = _read("r4/search-parameters.json", dict[str, dict[str, _ParameterRow]])
    found = {
        base: {
            code: ParameterDefinition(code, row.type, row.expression, row.target, row.url)
            for code, row in parameters.items()
        }
        for base, parameters in rows.items()
    }
    for own_id in OWN_PARAMETERS:
        tree = ig_resource("SearchParameter", own_id)
        (base,) = tree["base"]
        found[base][tree["code"]] = ParameterDefinition(
            tree["code"],
            tree["type"],
            tree["expression"],
            tuple(tree.get("target", ())),
            tree["url"],
        )
    return found


def value_set(url: str) -> Mapping[str, frozenset[str]] | None:
    """Codes of a value set that an element is bound to, by code system.

    ``None`` when its codes cannot be listed (UCUM units, MIME types, currencies) or no required
    binding names it. A version suffix (``|4.0.1``) on the URL is ignored.
    """
    return _value_sets().get(url.partition("|")[0])


@functools.cache
def patient_compartment() -> Mapping[str, tuple[str, ...]]:
    """Types in R4's Patient compartment, with the parameters that lead to the patient."""
    return _read("r4/compartment-patient.json", dict[str, tuple[str, ...]])


def core_operation(code: str) -> Mapping[str, Any] | None:
    """An OperationDefinition of the specification that is offered here, by its code."""
    return _read("r4/operations.json", dict[str, dict[str, Any]]).get(code)


def ig_resource(resource_type: str, resource_id: str) -> dict[str, Any]:
    """A resource of this project's own guide, as compiled; a fresh copy on every call.

    Raises:
        LookupError: when the guide has no such resource.
    """
    decoded: dict[str, Any] = msgspec.json.decode(_ig_bytes(resource_type, resource_id))
    return decoded


@functools.cache
def _ig_bytes(resource_type: str, resource_id: str) -> bytes:
    try:
        return (_folder() / "built" / f"{resource_type}-{resource_id}.json").read_bytes()
    except FileNotFoundError:
        raise LookupError(f"{resource_type}/{resource_id} is not in the guide") from None


@functools.cache
def _types() -> _Types:
    return _read("r4/types.json", _Types)


@functools.cache
def _value_sets() -> Mapping[str, Mapping[str, frozenset[str]]]:
    return _read("r4/value-sets.json", dict[str, dict[str, frozenset[str]]])


def _read(name: str, shape: type[_T]) -> _T:
    return msgspec.json.decode((_folder() / name).read_bytes(), type=shape)


@functools.cache
def _folder() -> Path:
    """Where the tables are: inside an installed wheel, or ``ig/`` of the checkout."""
    installed = _PACKAGE / "_ig"
    return installed if installed.is_dir() else _PACKAGE.parent / "ig"
