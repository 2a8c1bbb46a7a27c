from __future__ import annotations

import fhirpathpy
import pytest
from fhir.resources.R4B import get_fhir_model_class

from fhir_portal.fhir import definitions

# Where the R4B models are not R4. Everything else has the same element names at every depth.
R4B_DIFFERS = {
    "ActivityDefinition": {"subjectCanonical"},
    "ElementDefinition": {
        *(f"{stem}Meta" for stem in ("defaultValue", "fixed", "pattern")),
        *(f"{stem}CodeableReference" for stem in ("defaultValue", "fixed", "pattern")),
        *(f"{stem}RatioRange" for stem in ("defaultValue", "fixed", "pattern")),
    },
    "ElementDefinition.example": {"valueMeta", "valueCodeableReference", "valueRatioRange"},
    "Extension": {"valueMeta", "valueCodeableReference", "valueRatioRange"},
    "PlanDefinition": {"subjectCanonical"},
    "PlanDefinition.action": {"subjectCanonical"},
}
REWRITTEN_IN_R4B = {"Evidence", "EvidenceVariable"}


def element(path: str, name: str) -> definitions.Element:
    return definitions.structures()[path][name]


def test_r4_has_146_types_of_which_128_are_served() -> None:
    served = definitions.served_types()
    assert len(definitions.all_types()) == 146
    assert len(served) == len(set(served)) == 128
    assert set(served) < definitions.all_types()
    assert "MedicinalProduct" in definitions.all_types()
    assert "MedicinalProduct" not in served
    assert "SubscriptionStatus" not in definitions.all_types()  # R4B's own


def test_every_type_and_every_path_an_element_names_is_defined() -> None:
    structures = definitions.structures()
    assert definitions.all_types() <= structures.keys()
    named = {each.type for fields in structures.values() for each in fields.values()}
    assert named - structures.keys() == {
        *("base64Binary", "boolean", "canonical", "code", "date", "dateTime", "decimal", "id"),
        *("instant", "integer", "markdown", "oid", "positiveInt", "string", "time"),
        *("unsignedInt", "uri", "url", "uuid", "xhtml", "Resource"),
    }


def test_a_choice_is_one_element_for_each_of_its_types() -> None:
    patient = definitions.structures()["Patient"]
    choices = {name: each.type for name, each in patient.items() if each.choice == "deceased"}
    assert choices == {"deceasedBoolean": "boolean", "deceasedDateTime": "dateTime"}
    assert "deceased[x]" not in patient
    assert (
        len([each for each in definitions.structures()["Extension"].values() if each.choice]) == 50
    )


def test_a_repeated_structure_is_resolved_to_the_path_that_defines_it() -> None:
    assert element("Questionnaire.item", "item").type == "Questionnaire.item"
    assert element("Observation.component", "referenceRange").type == "Observation.referenceRange"
    assert element("Consent.provision", "provision").type == "Consent.provision"


def test_cardinality_summary_and_targets_are_those_of_the_specification() -> None:
    assert element("Patient", "name") == definitions.Element(
        type="HumanName", is_list=True, summary=True
    )
    assert element("Observation", "status").min == 1
    assert element("Observation", "subject").targets == ("Device", "Group", "Location", "Patient")
    assert element("Patient", "generalPractitioner").targets == (
        "Organization",
        "Practitioner",
        "PractitionerRole",
    )
    assert element("Provenance", "target").targets == ()  # any type
    assert element("Bundle.entry", "resource").type == "Resource"


def test_ids_and_urls_have_their_fhir_type() -> None:
    assert element("Patient", "id").type == "id"
    assert element("Patient.contact", "id").type == "string"
    assert element("HumanName", "id").type == "string"
    assert element("Extension", "url").type == "uri"


def test_elements_stand_in_the_order_of_the_definition() -> None:
    assert list(definitions.structures()["Period"]) == ["id", "extension", "start", "end"]
    patient = list(definitions.structures()["Patient"])
    assert patient[:3] == ["id", "meta", "implicitRules"]
    assert patient[-1] == "link"


def test_inherited_elements_are_in_every_resource_type() -> None:
    for name in definitions.all_types():
        assert {"id", "meta", "implicitRules", "language"} <= definitions.structures()[name].keys()


def r4b_elements(path: str) -> set[str]:
    model = get_fhir_model_class("".join(part[0].upper() + part[1:] for part in path.split(".")))
    names = {
        field.alias or name
        for name, field in model.model_fields.items()
        if name not in {"resource_type", "fhir_comments"}
    }
    return {name for name in names if not name.startswith("_")}


def test_the_r4b_models_have_the_elements_of_r4_but_for_the_known_differences() -> None:
    served = set(definitions.served_types())
    for path, fields in definitions.structures().items():
        root = path.partition(".")[0]
        if root in REWRITTEN_IN_R4B or root == "SubstanceAmount":  # the latter is not in R4B
            continue
        if root in definitions.all_types() and root not in served:
            continue
        if (
            path == "ExampleScenario.instance"
        ):  # its element "resourceType" is hidden by the model's
            continue
        assert r4b_elements(path) ^ fields.keys() == R4B_DIFFERS.get(path, set()), path


def test_a_required_binding_lists_its_codes_by_system() -> None:
    gender = element("Patient", "gender").binding
    assert gender is not None
    assert definitions.value_set(gender) == {
        "http://hl7.org/fhir/administrative-gender": frozenset(
            {"male", "female", "other", "unknown"}
        )
    }
    assert definitions.value_set(f"{gender}|4.0.1") == definitions.value_set(gender)


def test_the_codes_of_two_systems_are_kept_apart() -> None:
    intents = definitions.value_set("http://hl7.org/fhir/ValueSet/task-intent")
    assert intents is not None
    assert intents["http://hl7.org/fhir/task-intent"] == {"unknown"}
    assert {"proposal", "order"} < intents["http://hl7.org/fhir/request-intent"]


def test_codes_that_cannot_be_listed_are_none_rather_than_empty() -> None:
    assert definitions.value_set("http://hl7.org/fhir/ValueSet/ucum-units") is None
    assert definitions.value_set("http://hl7.org/fhir/ValueSet/mimetypes") is None
    assert definitions.value_set("https://unknown.example/ValueSet/x") is None


def test_only_four_of_the_required_bindings_cannot_be_listed() -> None:
    bound = {
        each.binding
        for fields in definitions.structures().values()
        for each in fields.values()
        if each.binding
    }
    assert len(bound) == 224
    assert {url for url in bound if definitions.value_set(url) is None} == {
        "http://hl7.org/fhir/ValueSet/currencies",
        "http://hl7.org/fhir/ValueSet/mimetypes",
        "http://hl7.org/fhir/ValueSet/ucum-units",
        "http://loinc.org/vs/LL379-9",
    }
    for url in bound:
        for system, codes in (definitions.value_set(url) or {}).items():
            assert codes, (url, system)


def test_a_search_parameter_keeps_only_the_alternatives_of_its_type() -> None:
    code = definitions.search_parameters()["Observation"]["code"]
    assert code == definitions.ParameterDefinition(
        code="code",
        type="token",
        expression="Observation.code",
        targets=(),
        url="http://hl7.org/fhir/SearchParameter/clinical-code",
    )
    patient = definitions.search_parameters()["Observation"]["patient"]
    assert patient.expression == "Observation.subject.where(resolve() is Patient)"
    assert patient.targets == ("Group", "Patient")


@pytest.mark.parametrize(
    ("resource_type", "code", "expression"),
    [
        ("MedicationRequest", "code", "MedicationRequest.medication.ofType(CodeableConcept)"),
        (
            "Condition",
            "abatement-age",
            "Condition.abatement.ofType(Age) | Condition.abatement.ofType(Range)",
        ),
        (
            "Observation",
            "value-string",
            "Observation.value.ofType(string) | Observation.value.ofType(CodeableConcept).text",
        ),
        ("InsurancePlan", "name", "InsurancePlan.name | InsurancePlan.alias"),
        ("Patient", "deceased", "Patient.deceased.exists() and Patient.deceased != false"),
        ("Resource", "_id", "Resource.id"),
    ],
)
def test_casts_are_written_as_filters(resource_type: str, code: str, expression: str) -> None:
    assert definitions.search_parameters()[resource_type][code].expression == expression


def test_every_search_expression_parses_and_starts_at_its_type() -> None:
    for base, parameters in definitions.search_parameters().items():
        for parameter in parameters.values():
            fhirpathpy.compile(parameter.expression)
            for alternative in parameter.expression.split(" | "):
                assert alternative.partition(".")[0] == base, parameter
            assert " as " not in parameter.expression
            assert ".as(" not in parameter.expression


def test_example_parameters_do_not_stand_in_for_real_ones() -> None:
    urls = {
        parameter.url.rpartition("/")[2]
        for parameters in definitions.search_parameters().values()
        for parameter in parameters.values()
    }
    assert not {url for url in urls if url.startswith("example")}
    assert definitions.search_parameters()["Resource"].keys() == {
        *("_id", "_lastUpdated", "_profile", "_security", "_source", "_tag")
    }


def test_the_patient_compartment_is_the_official_one() -> None:
    compartment = definitions.patient_compartment()
    assert len(compartment) == 66
    assert compartment["Encounter"] == ("patient",)
    assert compartment["Observation"] == ("performer", "subject")
    assert "Task" not in compartment
    for resource_type, codes in compartment.items():
        assert set(codes) <= definitions.search_parameters()[resource_type].keys()


def test_a_resource_of_the_guide_is_a_fresh_copy_on_every_call() -> None:
    sections = definitions.ig_resource("CodeSystem", "portal-section")
    assert sections["url"] == "https://fhir-portal.example/ig/CodeSystem/portal-section"
    sections.clear()
    assert definitions.ig_resource("CodeSystem", "portal-section")["id"] == "portal-section"


def test_a_resource_the_guide_does_not_have_is_a_lookup_error() -> None:
    with pytest.raises(LookupError, match="CodeSystem/nothing is not in the guide"):
        definitions.ig_resource("CodeSystem", "nothing")
