"""The vaccines of a record, to print: for a school, a camp, another practice.

It says what it is: a copy out of one practice's record, of one day. Nobody has signed it, and it
does not look as if somebody had. The page stands alone and takes all its text through an escaping
template; the PDF has the core fonts and nothing but text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fhir_portal.accounts.practice import local_time
from fhir_portal.documents.chart import ordered
from fhir_portal.documents.printed_sheet import begun, line, table, template
from fhir_portal.documents.wording import Json, clean, day, number, person_name, words_of

TITLE: Final = "Vaccines on record"
COLUMNS: Final = ("Vaccine", "Given on", "Dose", "Lot and maker", "Known from")
UNSIGNED: Final = (
    "Nobody has signed this. If a signature or a stamp is asked for, the practice can give one."
)
INCOMPLETE: Final = "Vaccines that were given elsewhere may be missing."
NONE: Final = "No vaccine that was given is on record here."
UNNAMED: Final = "Name and birth date are not shown to the person who printed this."
_MARGIN: Final = 16.0
_SIZE: Final = 10.0
_HEAD: Final = (226, 236, 240)


@dataclass(frozen=True, slots=True)
class Dose:
    """One vaccine that was given, in words."""

    vaccine: str
    given: str
    dose: str
    lot: str
    source: str

    @property
    def cells(self) -> tuple[str, ...]:
        """By `COLUMNS`."""
        return self.vaccine, self.given, self.dose, self.lot, self.source


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is printed. ``made`` is in seconds since 1970 UTC, ``zone`` the practice's (IANA)."""

    practice: str
    zone: str
    made: float
    name: str
    born: str
    doses: tuple[Dose, ...]

    @property
    def origin(self) -> str:
        """From where and of when it is."""
        when = local_time(self.zone, self.made)
        return f"Copied from the record of {self.practice} on {when}. {INCOMPLETE}"

    @property
    def whose(self) -> tuple[tuple[str, str], ...]:
        """Whose vaccines they are, as far as that may be seen."""
        known = (("Name", self.name), ("Born", self.born))
        return tuple((name, value) for name, value in known if value)


def certificate_of(
    immunizations: Iterable[Json], *, patient: Json, practice: str, zone: str, made: float
) -> Certificate:
    """Return what is printed of a record: by vaccine, the earliest first.

    Only what was given: neither what was not, nor what was recorded by mistake.
    """
    given = [dict(one) for one in immunizations if one.get("status") == "completed"]
    doses = [_dose(one) for one in reversed(ordered(given))]
    return Certificate(
        practice=practice,
        zone=zone,
        made=made,
        name=person_name(patient.get("name")),
        born=day(patient.get("birthDate")),
        doses=tuple(sorted(doses, key=lambda one: one.vaccine.casefold())),
    )


def _dose(tree: Json) -> Dose:
    primary = tree.get("primarySource")
    source = "" if primary is None else "Recorded when given" if primary else "Reported"
    origin = words_of(tree.get("reportOrigin"))
    lot = (tree.get("lotNumber"), (tree.get("manufacturer") or {}).get("display"))
    return Dose(
        vaccine=words_of(tree.get("vaccineCode")) or "Without a name",
        given=day(tree.get("occurrenceDateTime")) or clean(tree.get("occurrenceString") or ""),
        dose="; ".join(filter(None, map(_protocol, tree.get("protocolApplied") or ()))),
        lot=clean(", ".join(one for one in lot if one)),
        source=f"{source}: {origin}" if source and origin else source or origin,
    )


def _protocol(one: Json) -> str:
    """Which dose of how many, as it is told."""
    dose, series = (
        next((clean(number(one[f"{name}{kind}"])) for kind in _KINDS if f"{name}{kind}" in one), "")
        for name in ("doseNumber", "seriesDoses")
    )
    said = f"{dose} of {series}" if dose and series else dose
    named = clean(one.get("series") or "")
    return f"{named}: {said}" if named and said else named or said


_KINDS: Final = ("PositiveInt", "String")


def as_html(made: Certificate) -> bytes:
    """Return it as a page."""
    return (
        template("immunization_certificate.html")
        .render(
            title=TITLE, columns=COLUMNS, certificate=made, nothing=NONE, unnamed=UNNAMED,
            unsigned=UNSIGNED,
        )
        .encode()
    )  # fmt: skip


def as_pdf(made: Certificate) -> bytes:
    """Return it as a PDF."""
    pdf = begun(TITLE, zone=made.zone, made=made.made, margin=_MARGIN)
    line(pdf, made.practice, _SIZE)
    line(pdf, TITLE, _SIZE * 1.8, bold=True)
    for name, value in made.whose:
        line(pdf, f"{name}: {value}", _SIZE * 1.1)
    if not made.whose:
        line(pdf, UNNAMED, _SIZE)
    line(pdf, made.origin, _SIZE)
    pdf.ln(_SIZE * 0.4)
    if made.doses:
        rows = [dose.cells for dose in made.doses]
        table(pdf, COLUMNS, rows, widths=(3, 2, 1.5, 2, 2), size=_SIZE)
    else:
        line(pdf, NONE, _SIZE)
    pdf.ln(_SIZE * 0.4)
    line(pdf, UNSIGNED, _SIZE)
    return bytes(pdf.output())
