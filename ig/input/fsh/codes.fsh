CodeSystem: PortalConsentCategory
Id: consent-category
Title: "Portal Consent Category"
Description: "What kind of agreement a Consent records, where FHIR has no code for it."
* insert Published
* ^caseSensitive = true
* #proxy-grant "Proxy grant" "One person is allowed to see parts of the patient's record and, where it says so, to act for the patient."

CodeSystem: PortalTag
Id: portal-tag
Title: "Portal Tag"
Description: "Tags in `meta.tag` that change who sees a resource. The server's rules, staff and clients with the labelling permission set them."
* insert Published
* ^caseSensitive = true
* #directory "In the directory" "Listed in the practice directory: everybody who may use the portal may see it."
* #withheld "Withheld" "Kept back by the practice: neither the patient nor anyone acting for the patient sees it."
* #staff-invite "For staff who invite" "Seen by those of the practice's staff whose access level has `invite`, and by its systems; by neither the patient nor anyone acting for the patient."
* #staff-billing "For staff who work on bills" "Seen by those of the practice's staff whose access level has `billing`, and by its systems; by neither the patient nor anyone acting for the patient."
* #staff-recover "For staff who recover" "Seen by those of the practice's staff whose access level has `recover`, and by its systems; by neither the patient nor anyone acting for the patient."
* #staff-documents "For staff who take in documents" "Seen by those of the practice's staff whose access level has `documents`, and by its systems; by neither the patient nor anyone acting for the patient."
* #staff-appointments "For staff who see to appointments" "Seen by those of the practice's staff whose access level has `appointments`, and by its systems; by neither the patient nor anyone acting for the patient."

CodeSystem: ProxyRole
Id: proxy-role
Title: "Proxy Role"
Description: """
What an entry in the SMART launch context (`fhirContext`) stands for when somebody acts for the
patient, or access has an end. The `role` there is the concept's `uri`.
"""
* insert Published
* ^caseSensitive = true
* ^property.code = #uri
* ^property.uri = "https://fhir-portal.example/ig/CodeSystem/proxy-role#uri"
* ^property.description = "The role as it is written in the launch context."
* ^property.type = #string
* #related-person "Related person" "The RelatedPerson as whom the user acts."
* #related-person ^property.code = #uri
* #related-person ^property.valueString = "https://fhir-portal.example/ig/proxy-role/related-person"
* #grant "Grant" "The Consent that lets the user see this record."
* #grant ^property.code = #uri
* #grant ^property.valueString = "https://fhir-portal.example/ig/proxy-role/grant"
* #relationship "Relationship" "What the user is to the patient, in words for people."
* #relationship ^property.code = #uri
* #relationship ^property.valueString = "https://fhir-portal.example/ig/proxy-role/relationship"
* #section "Section" "A section of the record that the user, and so the app, may see. The identifier is its code in `portal-section`."
* #section ^property.code = #uri
* #section ^property.valueString = "https://fhir-portal.example/ig/proxy-role/section"
* #act-section "Section to act in" "A section in which the user may also act for the patient. The identifier is its code in `portal-section`."
* #act-section ^property.code = #uri
* #act-section ^property.valueString = "https://fhir-portal.example/ig/proxy-role/act-section"
* #access-ends "End of access" "When the app's access ends, unless it is ended before: a moment in UTC."
* #access-ends ^property.code = #uri
* #access-ends ^property.valueString = "https://fhir-portal.example/ig/proxy-role/access-ends"
