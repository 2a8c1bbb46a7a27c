"""What the rooms read through: what is committed, or what a transaction sees."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from fhir_portal.fhir.errors import Unavailable
from fhir_portal.mongo.driver import Document, Driver, DriverError, Session

_NO_ANSWER = "the database does not answer; try again later"


class Reading:
    """Reads what is committed, by a majority of the replica set.

    ``clock`` is seconds since 1970 UTC.
    """

    def __init__(self, driver: Driver, clock: Callable[[], float]) -> None:
        self.driver = driver
        self.clock = clock

    async def find(
        self,
        collection: str,
        filter: Document,  # noqa: A002 - MongoDB's word
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int = 0,
        hint: str | None = None,
        fields: Sequence[str] | None = None,
        ids: Collection[str] | None = None,
    ) -> list[Document]:
        """Return documents.

        ``hint`` names the index; ``fields`` are those wanted, besides ``_id``; ``ids`` says that
        the filter can match no documents but these.

        Raises:
            Unavailable: the database does not answer, or works on it for too long.
        """
        session = await self._seen(collection, ids)
        try:
            return await self.driver.find(
                collection,
                filter,
                sort=sort,
                limit=limit,
                hint=hint,
                fields=fields,
                session=session,
            )
        except (DriverError, Unavailable) as error:
            raise self._failed(error) from error

    async def count(
        self,
        collection: str,
        filter: Document,  # noqa: A002
        *,
        hint: str | None = None,
        limit: int = 0,
    ) -> int:
        """Count documents, up to ``limit`` if it is not 0. Raises as `find` does."""
        session = await self._seen(collection, None)
        try:
            return await self.driver.count(
                collection, filter, hint=hint, limit=limit, session=session
            )
        except (DriverError, Unavailable) as error:
            raise self._failed(error) from error

    async def _seen(self, collection: str, ids: Collection[str] | None) -> Session | None:
        """Make sure that what was changed here is seen; return the transaction's session."""
        del collection, ids
        return None

    def _failed(self, error: Exception) -> Exception:
        """Return what a reader is told when no answer came."""
        return error if isinstance(error, Unavailable) else Unavailable(_NO_ANSWER)
