"""``Patient/[id]/$export-self``: all that a caller may see of one record, as one archive to keep.

How much of what there is goes into the access log before the first byte leaves; the archive is made
as it leaves. Each type is read under one decision, taken when the call came.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from fhir_portal.fhir.interaction import FhirResponse, Stream
from fhir_portal.operations.call import Call
from fhir_portal.operations.exporting import Export, counted, parts_of
from fhir_portal.operations.links import touched_by
from fhir_portal.resources.interactions.read import key_of

MEDIA: Final = "application/zip"


async def export_self(call: Call) -> FhirResponse:
    """Return the archive as a stream.

    Raises:
        NotFound: the Patient is absent, or hidden; the same words.
    """
    row = await call.target(call.server.reader)
    patient = key_of(call.request).id
    parts = parts_of(call, patient)
    counts = await counted(call.server, parts)
    day = datetime.fromtimestamp(call.server.clock(), UTC).date().isoformat()
    told = {"download": "zip", "resources": sum(counts.values()), **counts}
    return FhirResponse(
        200,
        stream=Stream(
            media=MEDIA,
            name=f"health-record-{day}.zip",  # nothing of whose it is
            chunks=Export(call, patient, parts, counts).chunks,
        ),
        records=touched_by(row),
        detail=urlencode(told),
    )
