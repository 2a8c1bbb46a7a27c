"""``$export-self``: one archive of what the caller may see of a record, and no more."""

from __future__ import annotations

import hashlib
import io
import json
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from zipfile import BadZipFile, ZipFile

import pytest
from lxml import etree

from fhir_portal.access.owners import DIRECTORY as DIRECTORY_TYPES
from fhir_portal.access.owners import OWNERS
from fhir_portal.consent.sections import section_displays
from fhir_portal.operations import exporting
from fhir_portal.portal import Portal
from tests.builders import (
    DIRECTORY,
    RESTRICTED,
    WITHHELD,
    Answer,
    Caller,
    Clock,
    a_binary,
    a_document,
    a_practitioner,
    an_encounter,
    an_observation,
    assert_outcome,
    oneself,
    resource,
)
from tests.operations.charted import aunt, narrowed, record
from tests.staff import a_member_of_staff

__all__ = ["aunt", "record"]

pytestmark = [pytest.mark.usefixtures("record"), pytest.mark.requirement("portal", "S2-15")]

EXPORT = "Patient/ada/$export-self"


async def sent(answer: Answer) -> bytes:
    assert answer.status == 200, answer.body
    assert answer.response is not None
    assert answer.response.stream is not None
    return b"".join([one async for one in answer.response.stream.chunks()])


class Exported:
    """An archive that was opened."""

    def __init__(self, content: bytes) -> None:
        self.zip = ZipFile(io.BytesIO(content))
        assert self.zip.testzip() is None

    @property
    def names(self) -> list[str]:
        return self.zip.namelist()

    def lines(self, resource_type: str) -> list[bytes]:
        name = f"data/{resource_type}.ndjson"
        return self.zip.read(name).splitlines() if name in self.names else []

    @property
    def keys(self) -> set[str]:
        """``Type/id`` of every resource."""
        return {
            f"{one['resourceType']}/{one['id']}"
            for name in self.names
            if name.startswith("data/")
            for one in map(json.loads, self.zip.read(name).splitlines())
        }

    @property
    def manifest(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.zip.read("manifest.json"))
        return found

    @property
    def page(self) -> str:
        return self.zip.read("index.html").decode()


async def exported(by: Caller, whose: str = "ada") -> Exported:
    return Exported(await sent(await by.get(f"Patient/{whose}/$export-self")))


@pytest.fixture
def ada(portal: Portal) -> Caller:
    return Caller(portal, oneself("ada", scope="openid fhirUser patient/*.rs"))


async def searched(by: Caller) -> set[str]:
    """What the caller finds of the record by searching each type."""
    found: set[str] = set()
    for name in (*OWNERS,):
        if name in DIRECTORY_TYPES or name in {"AuditEvent", "Binary"}:
            continue
        if (await by.get(f"{name}?_count=1")).status == 200:
            found |= set(await by.everything(f"{name}?_count=50"))
    return found


async def test_it_holds_exactly_what_searches_find(ada: Caller, ehr: Caller, aunt: Caller) -> None:
    await ehr.store(
        a_binary("scan"),
        a_document("letter", of="ada", binary="scan"),
        an_encounter("stay", of="ada", meta=WITHHELD),
        an_observation("of-bo", of="bo"),
    )
    for by in (ada, aunt, narrowed(aunt, "results"), ada.with_scope("patient/Observation.rs")):
        wanted = await searched(by)
        found = await exported(by)
        of_record = {
            key
            for key in found.keys
            if key.partition("/")[0] not in DIRECTORY_TYPES | {"AuditEvent"}
        }
        assert of_record == wanted
        assert wanted
        assert "Encounter/stay" not in of_record


async def test_resources_are_the_bytes_that_are_stored(ada: Caller) -> None:
    found = await exported(ada)
    for own_id in ("pulse", "sugar"):
        stored = await ada.get(f"Observation/{own_id}")
        assert stored.body in found.lines("Observation")


async def test_the_manifest_tells_of_each_file(ada: Caller) -> None:
    found = await exported(ada)
    files = found.manifest["files"]
    assert isinstance(files, list)
    assert {one["name"] for one in files} | {"manifest.json"} == set(found.names)
    counts: Counter[str] = Counter()
    for one in files:
        content = found.zip.read(one["name"])
        assert (len(content), hashlib.sha256(content).hexdigest()) == (one["size"], one["sha256"])
        if "type" in one:
            assert len(content.splitlines()) == one["resources"]
            counts[one["type"]] += one["resources"]
    assert dict(counts) == {
        name: count
        for name, count in dict(found.manifest["resources"]).items()  # type: ignore[call-overload]
        if name != "Binary"
    }


async def test_it_has_the_documents_that_the_caller_may_have_made(
    ada: Caller, aunt: Caller
) -> None:
    found = await exported(ada)
    assert json.loads(found.zip.read(exporting.IPS))["type"] == "document"
    assert etree.fromstring(found.zip.read(exporting.CCD)).tag == "{urn:hl7-org:v3}ClinicalDocument"
    assert b"<script" not in found.zip.read(exporting.SUMMARY)
    made = {exporting.IPS, exporting.CCD, exporting.SUMMARY}
    assert made & set((await exported(narrowed(aunt, "results"))).names) == set()
    of_one = await exported(narrowed(aunt, "documents"))
    assert made & set(of_one.names) == {exporting.CCD}
    assert made & set((await exported(ada.with_scope("patient/Observation.rs"))).names) == set()


async def test_a_proxy_without_the_section_reads_no_name_in_it(aunt: Caller) -> None:
    """Whose record it is stands in a document and on the page only for who sees the Patient."""
    seen = await exported(aunt)
    assert "Quill" in seen.page
    unseen = await exported(narrowed(aunt, "documents", "results"))
    for name in unseen.names:
        assert b"Quill" not in unseen.zip.read(name), name


async def test_files_come_by_their_type_under_safe_names(ada: Caller, ehr: Caller) -> None:
    attached = {"contentType": "image/png", "data": b64encode(b"\x89PNG").decode()}
    await ehr.store(
        a_binary("scan", content=b64encode(b"%PDF-1").decode()),
        a_binary("Scan", content=b64encode(b"%PDF-2").decode()),
        {**a_binary("CON", content=b64encode(b"<script>").decode()), "contentType": "text/html"},
        a_document("one", of="ada", binary="scan", description="Letter <b>to</b> Ada"),
        a_document("two", of="ada", binary="Scan"),
        a_document("three", of="ada", binary="CON"),
        a_document("four", of="ada", content=[{"attachment": attached}]),
    )
    found = await exported(ada)
    files = {name: found.zip.read(name) for name in found.names if name.startswith("files/")}
    contents = {content: name for name, content in files.items()}
    assert contents[b"%PDF-1"].endswith("-scan.pdf")
    assert contents[b"%PDF-2"].endswith("-Scan.pdf")
    assert contents[b"<script>"].endswith("-CON.bin")
    assert contents[b"\x89PNG"].endswith("-four.png")
    assert len({name.casefold() for name in files}) == len(files)
    assert "Letter &lt;b&gt;to&lt;/b&gt; Ada" in found.page


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in {"href", "src", "action"}:
                self.addresses.append(value or "")


async def test_the_page_opens_from_a_disk_and_does_nothing(ada: Caller) -> None:
    found = await exported(ada)
    page = _Page()
    page.feed(found.page)
    assert page.addresses
    assert set(page.addresses) <= set(found.names)
    data = {name for name in found.names if not name.startswith("data/Organization")}
    assert {one for one in data if one.startswith("data/")} <= set(page.addresses)
    assert page.tags & {"script", "form", "iframe", "object", "embed", "img", "base"} == set()
    assert not [one for one in page.attributes if one.startswith("on")]
    assert "Measurements and test results" in found.page


async def test_what_it_refers_to_in_the_directory_comes_along(ada: Caller, ehr: Caller) -> None:
    role = resource(
        "PractitionerRole", "role", practitioner={"reference": "Practitioner/of-the-role"}
    )
    await ehr.store(
        a_practitioner("of-the-role", meta=DIRECTORY),
        a_practitioner("of-nobody"),
        role,
        an_observation("seen-by", of="ada", performer="PractitionerRole/role"),
    )
    keys = (await exported(ada)).keys
    assert {"PractitionerRole/role", "Practitioner/of-the-role"} <= keys
    assert "Practitioner/of-nobody" not in keys


async def test_what_is_hidden_changes_no_byte(aunt: Caller, ehr: Caller) -> None:
    by = narrowed(aunt, "results", "documents")
    none = by.with_scope("patient/Observation.rs patient/Patient.rs patient/Binary.r")
    before = [await sent(await one.get(EXPORT)) for one in (none, none)]
    await ehr.store(
        an_observation("hidden", of="ada", meta=RESTRICTED | WITHHELD),
        an_encounter("hidden", of="ada"),
        an_observation("of-kit", of="kit"),
        a_binary("hidden"),
        a_document("hidden", of="ada", binary="hidden", meta=WITHHELD),
        a_practitioner("hidden"),
    )
    assert await sent(await none.get(EXPORT)) == before[0] == before[1]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_it_is_one_line_of_the_log_before_it_begins(ada: Caller, method: str) -> None:
    answer = await ada.ask(method, EXPORT)
    assert answer.response is not None
    rows = await ada.portal.server.log.of_record(
        ada.auth.practice, "ada", agent=None, told=True, low=0, high=2**62, before=None, limit=10
    )
    (row,) = [one.row for one in rows if one.row.interaction == "$export-self"]
    assert (row.what, row.status) == ("Patient/ada", 200)
    told = dict(part.split("=") for part in row.detail.split("&"))
    found = Exported(await sent(answer))
    assert told["download"] == "zip"
    assert told["Observation"] == str(len(found.lines("Observation")))
    assert int(told["resources"]) == sum(
        int(one) for name, one in told.items() if name not in {"download", "resources"}
    )


async def test_who_looked_is_in_it_as_far_as_the_caller_reads_that(
    ada: Caller, aunt: Caller
) -> None:
    await aunt.get("Observation/pulse")
    await ada.get("Observation/sugar")
    agents = {
        one["who"].get("reference")
        for line in (await exported(ada)).lines("AuditEvent")
        for one in json.loads(line)["agent"]
    }
    assert {"RelatedPerson/aunt", "Patient/ada"} <= agents
    whole = Caller(aunt.portal, replace(aunt.auth))
    theirs = narrowed(whole, *section_displays())
    for line in (await exported(theirs)).lines("AuditEvent"):
        assert "Patient/ada" not in [
            one["who"].get("reference") for one in json.loads(line)["agent"]
        ]


async def test_no_other_record_and_no_ended_right(ada: Caller, aunt: Caller, clock: Clock) -> None:
    for url in ("Patient/kit/$export-self", "Patient/nobody/$export-self"):
        answer = await ada.get(url)
        assert_outcome(answer, 404, "not-found")
    assert_outcome(await ada.who(expires=clock.now).get(EXPORT), 403, "forbidden")
    assert aunt.auth.record is not None
    over = replace(aunt.auth.record, until=clock.now)
    assert_outcome(await aunt.who(record=over).get(EXPORT), 403, "forbidden")


async def test_an_ehr_is_not_somebody_to_take_a_record_along(ehr: Caller) -> None:
    assert_outcome(await ehr.get(EXPORT), 403, "forbidden")


async def test_staff_who_view_hand_it_out(portal: Portal, ehr: Caller) -> None:
    await ehr.store(an_encounter("stay", of="ada", meta=WITHHELD), an_observation("k", of="kit"))
    member = Caller(portal, a_member_of_staff())
    found = await exported(member)
    assert {"Observation/pulse", "Encounter/stay"} <= found.keys
    assert "Observation/k" not in found.keys
    assert member.auth.staff is not None
    staff = replace(member.auth.staff, permissions=frozenset({"invite"}))
    assert_outcome(await member.who(staff=staff).get(EXPORT), 403, "forbidden")


@pytest.mark.parametrize("query", ["_format=xml", "type=Patient", "section=results"])
async def test_what_it_does_not_take_is_refused(ada: Caller, query: str) -> None:
    answer = await ada.get(f"{EXPORT}?{query}")
    assert answer.status == 400


async def test_it_is_no_entry_of_a_bundle(ada: Caller) -> None:
    entry = {"request": {"method": "GET", "url": EXPORT}}
    answer = await ada.bundle({"resourceType": "Bundle", "type": "batch", "entry": [entry]})
    assert answer.json["entry"][0]["response"]["status"].startswith("400")


async def test_a_record_too_large_for_one_document_comes_without(
    ada: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_TOGETHER", 3)
    monkeypatch.setattr(exporting, "_PAGE", 1)
    found = await exported(ada)
    assert exporting.CCD not in found.names
    assert len(found.lines("Observation")) >= 3
    assert "What is not in this copy" in found.page
    assert "too many for one document" in found.page


async def test_of_a_whole_copy_nothing_is_said_to_be_missing(ada: Caller) -> None:
    assert "not in this copy" not in (await exported(ada)).page


async def test_nobody_is_told_of_documents_that_are_not_theirs_to_make(
    aunt: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_TOGETHER", 0)
    by = narrowed(aunt, "results", "documents")
    found = await exported(by.with_scope("patient/Observation.rs patient/Binary.r"))
    assert "too many for one document" not in found.page


async def test_a_directory_that_is_cut_is_said_to_be(
    ada: Caller, ehr: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is named again is not missing."""
    monkeypatch.setattr(exporting, "_MOST_NAMED", 2)
    monkeypatch.setattr(exporting, "_CHUNK", 1)
    for number in range(4):
        await ehr.store(
            a_practitioner(f"p{number}", meta=DIRECTORY),
            an_observation(f"o{number}", of="ada", performer=f"Practitioner/p{number}"),
        )
    found = await exported(ada)
    named = [one for one in found.keys if one.startswith(("Practitioner/", "Organization/"))]
    assert len(named) <= 2
    assert "people, places and medicines of the practice" in found.page


async def test_a_long_data_file_is_split(ada: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_SPLIT", 1)
    found = await exported(ada)
    assert "data/Observation-2.ndjson" in found.names
    page: Mapping[str, int] = Counter(found.page.split('"'))
    assert page["data/Observation-2.ndjson"] >= 1


async def test_what_was_cut_opens_as_no_archive(ada: Caller) -> None:
    answer = await ada.get(EXPORT)
    assert answer.response is not None
    assert answer.response.stream is not None
    chunks = answer.response.stream.chunks()
    some = b""
    async for one in chunks:
        some += one
        if len(some) > 500:
            break
    await chunks.aclose()
    with pytest.raises(BadZipFile):
        ZipFile(io.BytesIO(some))
