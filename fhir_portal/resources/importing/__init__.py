"""Import: FHIR JSON files into one practice, checked beside the process that writes.

files       which files, and the documents on their lines
splitting   a document's resources, their ids and where its references lead
preparing   checks, rewritten references, index entries: in other processes
progress    how far it got, kept in the same transactions
importer    batches, the transactions they are stored in, and the summary
"""

from __future__ import annotations

from fhir_portal.resources.importing.files import files_in
from fhir_portal.resources.importing.importer import Summary, import_files, operator
from fhir_portal.resources.importing.progress import ImportRejection

__all__ = ["ImportRejection", "Summary", "files_in", "import_files", "operator"]
