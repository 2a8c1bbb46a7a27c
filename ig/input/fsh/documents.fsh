// Documents made on demand from what the caller may see, and stored ones made readable.

Instance: summary
InstanceOf: OperationDefinition
Usage: #definition
Title: "Patient summary"
Description: "An International Patient Summary made on demand: a document Bundle, or a page or a PDF of the same. It holds what the caller could search for and nothing else, section by section; an empty section does not tell whether nothing is stored or it is kept back."
* insert Operation(summary)
* name = "PatientSummary"
* base = "http://hl7.org/fhir/uv/ips/OperationDefinition/summary"
* affectsState = false
* resource = #Patient
* system = false
* type = true
* instance = true
* insert Parameter(in, identifier, 0, 1, string, [["On the type: the identifier of the Patient, `system|value`. A token for one record needs none."]])
* insert Parameter(in, profile, 0, 1, canonical, [["The Bundle or Composition profile of the International Patient Summary; no other is offered."]])
* insert Parameter(in, format, 0, 1, code, [["`fhir` (the default), or `html` or `pdf` for a Binary."]])
* insert Parameter(in, start, 0, 1, dateTime, [["The beginning of the time of care the summary is about."]])
* insert Parameter(in, end, 0, 1, dateTime, [["Its end."]])
* insert Parameter(out, return, 1, 1, Resource, [["A Bundle of type `document`; with `format` a Binary, answered as its own content to who does not ask for FHIR JSON."]])

Instance: ccd
InstanceOf: OperationDefinition
Usage: #definition
Title: "Record as a C-CDA"
Description: "A Continuity of Care Document (C-CDA 2.1) made on demand: the whole record, or what falls in a time. It holds what the caller could search for and nothing else, section by section."
* insert Operation(ccd)
* name = "RecordAsCcda"
* affectsState = false
* insert OnInstance(Patient)
* insert Parameter(in, start, 0, 1, dateTime, [["The beginning of the time of care the document is about."]])
* insert Parameter(in, end, 0, 1, dateTime, [["Its end."]])
* insert Parameter(out, return, 1, 1, Binary, [["`application/cda+xml`, answered as its own content to who does not ask for FHIR JSON."]])

Instance: immunization-certificate
InstanceOf: OperationDefinition
Usage: #definition
Title: "Vaccines to print"
Description: "The vaccines that the record has and the caller may see, to print for a school or another practice. It says whose record it is from and when it was made, and is not signed."
* insert Operation(immunization-certificate)
* name = "ImmunizationCertificate"
* affectsState = false
* insert OnInstance(Patient)
* insert Parameter(in, format, 0, 1, code, [["`pdf` (the default) or `html`."]])
* insert Parameter(out, return, 1, 1, Binary, [["A PDF or a page, answered as its own content to who does not ask for FHIR JSON."]])

Instance: health-cards-issue
InstanceOf: OperationDefinition
Usage: #definition
Title: "Signed cards of vaccines"
Description: "SMART Health Cards of the vaccines that were given, as far as the caller may see them, signed by the practice. Cards hold no more than fits one QR code; what does not is on a further card. Without a vaccine for a card the answer has no parameter."
* insert Operation(health-cards-issue)
* name = "HealthCardsIssue"
* base = "http://hl7.org/fhir/uv/smart-health-cards-and-links/OperationDefinition/patient-i-health-cards-issue"
* affectsState = false
* insert OnInstance(Patient)
* insert Parameter(in, credentialType, 1, *, uri, [["What cards are to hold, all of it: `Immunization` (also `#immunization` and `#covid19`, with or without `https://smarthealth.cards`). There are no cards of another resource type."]])
* insert Parameter(in, credentialValueSet, 0, *, uri, [["Only vaccines of this value set of SMART Health Cards; of several, one card with some of each. A set that is not known here is refused."]])
* insert Parameter(in, includeIdentityClaim, 0, *, string, [["Only this of the Patient is on the cards: `Patient.name` or `Patient.birthDate`. Otherwise both; other elements never."]])
* insert Parameter(in, _since, 0, 1, dateTime, [["Only vaccines that were given since then."]])
* insert Parameter(out, verifiableCredential, 0, *, string, [["A card: a compact JWS."]])
* insert Parts(out, resourceLink, 0, *, [["Which stored resource one on a card was made of."]])
* insert Part(out, vcIndex, 0, 1, integer, [["The card, from 0."]])
* insert Part(out, bundledResource, 1, 1, uri, [["Its address on the card."]])
* insert Part(out, hostedResource, 1, 1, uri, [["Its address here."]])

Instance: docref
InstanceOf: OperationDefinition
Usage: #definition
Title: "Documents of a record"
Description: "The documents there are of a record: made on demand from what the caller may see, and stored ones that the caller may see whole."
* insert Operation(docref)
* name = "DocumentsOfARecord"
* base = "http://hl7.org/fhir/us/core/OperationDefinition/docref"
* affectsState = false
* insert OnType(DocumentReference)
* insert Parameter(in, patient, 1, 1, id, [["The id of the Patient. If there is none, or the caller may not see them, the Bundle is empty."]])
* insert Parameter(in, start, 0, 1, dateTime, [["The beginning of the time of care."]])
* insert Parameter(in, end, 0, 1, dateTime, [["Its end."]])
* insert Parameter(in, type, 0, *, Coding, [["Types of document, in a query `system|code`. LOINC `34133-9` (the CCD, also if none is given) and `60591-5` (the International Patient Summary) are made on demand; of other types there are the stored ones."]])
* insert Parameter(in, on-demand, 0, 1, boolean, [["`true`: only those made on demand."]])
* insert Parameter(in, profile, 0, *, canonical, [["Profiles that the documents have to claim. Those made here claim none, so that the Bundle is empty."]])
* insert Parameter(out, return, 1, 1, Bundle, [["A searchset of DocumentReferences; with each one made on demand its Binary, under the address that the attachment names."]])

Instance: render
InstanceOf: OperationDefinition
Usage: #definition
Title: "Document as a page"
Description: "A stored C-CDA document as a page: its narrative, made anew without anything that acts."
* insert Operation(render)
* name = "DocumentAsAPage"
* affectsState = false
* insert OnInstance(DocumentReference)
* insert Parameter(out, return, 1, 1, Binary, [["`text/html`, answered as its own content to who does not ask for FHIR JSON."]])

Instance: export-self
InstanceOf: OperationDefinition
Usage: #definition
Title: "A record to take along"
Description: "One archive of all that the caller may see of a record: the resources as they are stored, the files that belong to them, an International Patient Summary, a C-CDA, and a page that says what is in it. It holds what the caller could search for and nothing else. It is sent as it is made, and ends, broken, with the caller's rights."
* insert Operation(export-self)
* name = "RecordToTakeAlong"
* affectsState = false
* insert OnInstance(Patient)
* insert Parameter(out, return, 1, 1, Binary, [["`application/zip`, always answered as its own content."]])
