"""What was left for staff to see to, and the job that makes Tasks of it."""

from __future__ import annotations

from typing import Any

from fhir_portal.accounts.matter import About, StaffMatter
from fhir_portal.notify.jobs import work_off
from fhir_portal.operations.staff_task import staff_task_jobs
from fhir_portal.portal import Portal


async def open_matters(
    store: Any, about: About | None = None, practice: str | None = None
) -> list[StaffMatter]:
    """What was noted and is not known to be over, of nobody's too."""
    return [
        one
        for one in await store.every(StaffMatter)
        if one.settled is None and about in {None, one.about} and practice in {None, one.practice}
    ]


async def tasks_made(portal: Portal) -> int:
    """Do the jobs that wait; return how many were done."""
    server = portal.server
    functions = staff_task_jobs(server)
    return await work_off(server.store, functions, worker="w", clock=server.clock)
