"""What a `Call` reads: the query is not the only thing that is trusted."""

from __future__ import annotations

from typing import Any, cast

import pytest

from fhir_portal.access.visibility import Visibility
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.errors import NotFound
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import Arguments, definition_of
from fhir_portal.resources.permission import Leak
from tests.builders import DERM, Caller, an_ehr


class Leaking:
    """A reader that shows what was not asked for."""

    def __init__(self, row: Any) -> None:
        self._row = row

    async def read(self, key: ResourceKey, visible: Visibility) -> Any:
        assert isinstance(key, ResourceKey)
        assert isinstance(visible, Visibility)
        return self._row


async def test_a_row_outside_of_the_visibility_is_an_error_and_no_answer(
    family: EmbeddedStore, ehr: Caller
) -> None:
    bo = await family.read(
        ResourceKey("Patient", "bo"), Visibility.of_server("Patient", practice=DERM)
    )
    assert bo is not None
    call = Call(
        server=ehr.portal.server,
        collaborators=ehr.portal.collaborators,
        definition=definition_of("portal-invite"),
        request=FhirRequest("operation", "Patient", "ada", operation="portal-invite"),
        auth=an_ehr(),
        arguments=Arguments({}),
        visible=Visibility.of_record(
            "Patient", practice=DERM, record="ada", sections=None, labels=None
        ),
    )
    leaking = cast("Any", Leaking(bo))
    with pytest.raises(Leak):
        await call.target(leaking)
    with pytest.raises(Leak):
        await call.named(leaking, {"reference": "Patient/bo"}, "Patient")
    with pytest.raises(NotFound):
        await call.named(family, {"reference": "Patient/bo"}, "Patient")
