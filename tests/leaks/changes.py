"""Changes that one reader cannot see: made up at random, kept if the naive view stays the same."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests import builders as b
from tests.builders import DERM, FAMILY, RESTRICTED, WITHHELD, Json
from tests.leaks.oracle import (
    SHARED,
    STAFF_ENTRIES,
    State,
    View,
    adds_a_line,
    own_facts,
)
from tests.leaks.world import PATIENTS, READERS, SENSITIVE, STRANGE, Reader, Write, patched

_META = (None, None, RESTRICTED, WITHHELD, SENSITIVE, STRANGE)
_STAFF = frozenset(one.user for one in READERS if one.is_staff)
_FREE = ("bo-friend",)
"""RelatedPersons that no reader is; a second grant for a reader would end that reader's rights."""


@dataclass(frozen=True)
class Change:
    """Writes that a reader must not notice, and why they are hidden from that reader."""

    kind: str
    writes: tuple[Write, ...]

    def __str__(self) -> str:
        return f"{self.kind}: " + ", ".join(
            f"{'DELETE' if one.tree is None else 'PUT'} {one.practice} {one.key}"
            for one in self.writes
        )


def hidden_change(rng: random.Random, state: State, reader: Reader) -> tuple[Change, State]:
    """Return a change that ``reader`` cannot see, and the state after it."""
    view = View(state, reader)
    before = view.image()
    reads_log = reader.is_self and view.allows("s", "AuditEvent")
    while True:
        writes = _made_up(rng, state, reader)
        if not writes or any(_moves_rights(one) for one in writes):
            continue
        after = state.copy()
        told = False
        for one in writes:
            after.apply(one)
            told = told or adds_a_line(after, one) == (reader.practice, reader.patient)
        if reads_log and told:
            continue  # the person may know of it, whatever else this token may read
        if View(after, reader).image() == before:
            return Change(_kind(reader, state, after, writes[-1]), tuple(writes)), after


def _moves_rights(write: Write) -> bool:
    """Identity of the readers: who changes it changes rights, which is no hidden change."""
    name, _, own_id = write.key.partition("/")
    if name == "Person" or write.key in _STAFF:
        return True
    if name == "Consent" and write.tree is not None:
        actor = write.tree["provision"]["actor"][0]["reference"]["reference"]
        return own_id.startswith("more-") and actor.partition("/")[2] not in _FREE
    return False


def _made_up(rng: random.Random, state: State, reader: Reader) -> list[Write]:
    if reader.patient and rng.random() < 0.4:
        return _about_own_record(rng, state, reader)
    practice = rng.choice((reader.practice,) * 4 + (DERM, FAMILY, SHARED))
    if reader.is_staff and not reader.patient and rng.random() < 0.5:
        return _of_nobody(rng, reader.practice)
    living = list(state.living(practice))
    if practice == SHARED:
        tree = b.resource("Organization", rng.choice(("quiet-union", "new-union")), name="Other")
        return [Write.of(SHARED, tree)]
    key, version = rng.choice(living)
    tree = version.tree or {}
    action = rng.choice(("create", "create", "update", "update", "label", "move", "delete"))
    if action == "create":
        return _created(rng, practice)
    if action == "delete":
        return [Write(practice, key, None)]
    if action == "label":
        return [Write.of(practice, patched(tree, meta=rng.choice(_META)))]
    if action == "move":
        return [Write.of(practice, _moved(rng, practice, tree))]
    return [Write.of(practice, _edited(rng, tree))]


def _about_own_record(rng: random.Random, state: State, reader: Reader) -> list[Write]:
    """Something in the reader's own record, or the record they are a proxy for."""
    living = [
        version.tree
        for key, version in state.living(reader.practice)
        if reader.patient in version.facts.owners and not key.startswith("Patient/")
    ]
    tree = rng.choice(living) or {}
    action = rng.choice(("create", "update", "update", "label", "delete"))
    if action == "create":
        return _created(rng, reader.practice, of=reader.patient)
    if action == "delete":
        return [Write(reader.practice, f"{tree['resourceType']}/{tree['id']}", None)]
    if action == "label":
        return [Write.of(reader.practice, patched(tree, meta=rng.choice(_META)))]
    return [Write.of(reader.practice, _edited(rng, tree))]


def _of_nobody(rng: random.Random, practice: str) -> list[Write]:
    """Something in the practice that belongs to no patient's record."""
    own_id = f"more-{rng.randrange(1000)}"
    options = (
        lambda: b.a_binary(own_id),
        lambda: b.a_provenance(own_id, about=["Person/ada"]),
        lambda: b.a_provenance(own_id, about=["Organization/payer"]),
    )
    return [Write.of(practice, rng.choice(options)())]


def _created(rng: random.Random, practice: str, of: str = "") -> list[Write]:
    of = of or rng.choice(PATIENTS[practice])
    own_id = f"more-{rng.randrange(1000)}"
    meta = rng.choice(_META)
    doctor = f"Practitioner/{rng.choice(('lark', 'wren', 'idle', 'robin'))}"
    if rng.random() < 0.2:  # the id that the other practice uses for something
        own_id = f"{rng.choice(('pulse', 'lab', 'letter', 'rash'))}-{rng.choice(('ada', 'tess'))}"
    category = rng.choice((None, "laboratory", "vital-signs", "social-history"))
    options = (
        lambda: [b.an_observation(own_id, of=of, category=category, performer=doctor, meta=meta)],
        lambda: [b.an_observation(own_id, of=of, category=category, performer=doctor, meta=meta)],
        lambda: [b.a_condition(own_id, of=of, meta=meta)],
        lambda: [b.an_encounter(own_id, of=of, meta=meta)],
        lambda: [b.a_binary(own_id), b.a_document(own_id, of=of, binary=own_id, meta=meta)],
        lambda: [
            b.a_provenance(own_id, about=[f"Observation/{rng.choice(('lab', 'kept', 'loose'))}-bo"])
        ],
        lambda: [b.a_provenance(own_id, about=["Observation/lab-ada", "Observation/lab-bo"])],
        lambda: [b.a_communication(own_id, of=of, sender=f"Patient/{of}", meta=meta)],
        lambda: [b.some_answers(own_id, of=of, source=f"Patient/{of}", meta=meta)],
        lambda: [b.an_appointment(own_id, of=rng.sample(PATIENTS[practice], 2), meta=meta)],
        lambda: [b.a_practitioner(own_id, family=rng.choice(("Lark", "Quill", "Zebra")))],
        lambda: [b.a_patient(own_id, family="Quill")],
        lambda: [b.a_grant(own_id, of="bo", to="bo-friend", sections=["documents"])],
        lambda: [b.a_related_person(own_id, of=of)],
    )
    return [Write.of(practice, tree) for tree in rng.choice(options)()]


def _edited(rng: random.Random, tree: Json) -> Json:
    name = tree["resourceType"]
    if name == "Observation":
        value = {**tree["valueQuantity"], "value": rng.randrange(10, 200)}
        category = rng.choice(("laboratory", "vital-signs", "social-history"))
        return patched(
            tree,
            valueQuantity=value,
            effectiveDateTime=f"20{rng.randrange(20, 30)}-05-06",
            category=[b.concept(b.OBSERVATION_CATEGORY, category)],
        )
    if name == "Binary":
        return patched(tree, data="QUJDRA==")
    if name in {"Patient", "Practitioner"}:
        return patched(tree, name=[{"family": rng.choice(("Lark", "Quill", "Xylander"))}])
    if name == "Consent":
        return patched(tree, dateTime=f"20{rng.randrange(20, 30)}-05-06T10:00:00Z")
    if name == "Provenance":
        return patched(tree, recorded=f"20{rng.randrange(20, 30)}-05-06T10:00:00Z")
    return patched(tree, language="en")


def _moved(rng: random.Random, practice: str, tree: Json) -> Json:
    to = b.reference(f"Patient/{rng.choice(PATIENTS[practice])}")
    for element in ("subject", "patient", "beneficiary"):
        if element in tree and tree["resourceType"] not in {"Consent", "RelatedPerson"}:
            return patched(tree, **{element: to})
    return _edited(rng, tree)


def _kind(reader: Reader, before: State, after: State, write: Write) -> str:
    """Why this change is hidden from this reader, for the figures."""
    name = write.key.partition("/")[0]
    if write.practice != reader.practice:
        return "another practice"
    if reader.is_staff and not reader.patient:
        return "nobody's record"
    if name in {"Consent", "RelatedPerson"}:
        return "another's grant"
    versions = after.practices[write.practice][write.key]
    facts = versions[-1].facts
    if name in STAFF_ENTRIES:
        return "staff nobody mentions"
    if reader.patient not in facts.owners:
        old = before.practices[write.practice].get(write.key)
        if old and write.tree is not None and old[-1].facts.owners != facts.owners:
            return "moved between others"
        return "another record"
    if len(facts.owners) > 1:
        return "several records"
    if reader.sections is not None and not facts.sections <= reader.sections:
        return "unclassified" if "?" in facts.sections else "withheld section"
    if facts.labels:
        return "labelled"
    if write.tree is not None and own_facts(write.tree).owners:
        return "beyond the scope"
    return "other"
