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
* insert Parameter(out, return, 1, 1, Resource, [["A Bundle of type `document`; with `format` a Binary, answered as its own content to who does not ask for FHIR JSON."]])
