"""``Patient/[id]/$ccd``: the record, or what falls in a time, as a C-CDA for the caller.

It is where the DocumentReference that ``$docref`` returns points: made anew whenever it is fetched,
under the rights of whoever fetches it then.
"""

from __future__ import annotations

import asyncio

from fhir_portal.documents.ccda.document import MEDIA, as_ccd
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.charting import chart_of
from fhir_portal.resources.interactions.read import key_of


async def ccd(call: Call) -> FhirResponse:
    """Return a Continuity of Care Document as a Binary that is stored nowhere.

    Raises:
        NotFound: the Patient is absent, or hidden; the same words.
        Unprocessable: the times are none, or there is too much for one document.
    """
    chart, rows = await chart_of(
        call,
        key_of(call.request).id,
        start=call.arguments.one("start"),
        end=call.arguments.one("end"),
    )
    return call.binary(MEDIA, await asyncio.to_thread(as_ccd, chart), *rows)
