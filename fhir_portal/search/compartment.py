"""The Patient compartment as a way to search: ``Patient/7/Observation``.

It is a feature of search (FHIR R4 §3.1.1.2; CompartmentDefinition/patient), not the boundary of
what somebody may see: that is ``access/owners``.
"""

from __future__ import annotations

from collections.abc import Mapping

from fhir_portal.fhir.definitions import patient_compartment, served_types
from fhir_portal.search.criterion import Criterion
from fhir_portal.search.registry import parameters_for
from fhir_portal.search.values import ReferenceValue, Token


def compartment_types() -> Mapping[str, tuple[str, ...]]:
    """The served types that can be in it, each with the parameters that lead to the patient."""
    return {
        type_: codes for type_, codes in patient_compartment().items() if type_ in served_types()
    }


def compartment_criteria(resource_type: str, patient: str) -> tuple[Criterion, ...]:
    """What puts a resource in a patient's compartment: **any one** of these holds.

    Args:
        resource_type: of the resources searched.
        patient: the id of the Patient.

    Returns:
        the criteria, none for a type outside the compartment. The patient is in its own.

    Raises:
        UnknownType: when the type is not served.
    """
    parameters = parameters_for(resource_type)
    criteria = [
        Criterion(parameters[code], "", (ReferenceValue("Patient", patient, None),))
        for code in patient_compartment().get(resource_type, ())
    ]
    if resource_type == "Patient":
        criteria.append(Criterion(parameters["_id"], "", (Token(None, patient),)))
    return tuple(criteria)
