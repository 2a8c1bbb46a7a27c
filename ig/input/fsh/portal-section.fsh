// The one table of portal sections. The staff form, the sharing page, the consent page of an app,
// granular scopes and grants all read it; the server parses the `filter` rows.

CodeSystem: PortalSection
Id: portal-section
Title: "Portal Section"
Description: """
The parts of a record that can be shared or kept back one by one. Each `filter` says which resources
belong to a section: a resource type, or a type and one `category` search (of a Task: `code`), written
as in a FHIR search (`Type?category=system|code,system|code`; `category:not=` is true when none of the
categories is the one named).

A type stands in one section only, or in several with filters that do not overlap. A
resource whose categories lie in two sections belongs to both and is shown only to who may see both.
A resource of a listed type that matches no filter, and a resource of a type that is not listed, is
in no section: the patient and staff see it, nobody it is shared with does. Provenance and Binary
are in no section of their own: they follow what they belong to.
"""
* insert Published
* ^caseSensitive = true
* ^valueSet = Canonical(PortalSectionCodes)
* ^property.code = #filter
* ^property.uri = "https://fhir-portal.example/ig/CodeSystem/portal-section#filter"
* ^property.description = "A resource type, or a type and one search by category (of a Task: by code), that belongs to the section."
* ^property.type = #string

* #demographics "Personal details" "Name, date of birth, address, phone numbers and other details about the patient."
* #demographics ^property[+].code = #filter
* #demographics ^property[=].valueString = "Patient"
* #demographics ^property[+].code = #filter
* #demographics ^property[=].valueString = "Task?code=https://fhir-portal.example/ig/CodeSystem/portal-task|propose-demographics"

* #insurance "Insurance" "Which health plan covers the patient, and what it says it will pay for."
* #insurance ^property[+].code = #filter
* #insurance ^property[=].valueString = "Coverage"
* #insurance ^property[+].code = #filter
* #insurance ^property[=].valueString = "DocumentReference?category=https://fhir-portal.example/ig/CodeSystem/portal-document|insurance-card"
* #insurance ^property[+].code = #filter
* #insurance ^property[=].valueString = "CoverageEligibilityRequest"
* #insurance ^property[+].code = #filter
* #insurance ^property[=].valueString = "CoverageEligibilityResponse"
* #insurance ^property[+].code = #filter
* #insurance ^property[=].valueString = "EnrollmentRequest"
* #insurance ^property[+].code = #filter
* #insurance ^property[=].valueString = "EnrollmentResponse"
* #insurance ^property[+].code = #filter
* #insurance ^property[=].valueString = "Task?code=https://fhir-portal.example/ig/CodeSystem/portal-task|propose-insurance"

* #appointments "Appointments" "Visits that are planned, asked for, changed or cancelled."
* #appointments ^property[+].code = #filter
* #appointments ^property[=].valueString = "Appointment"
* #appointments ^property[+].code = #filter
* #appointments ^property[=].valueString = "AppointmentResponse"

* #messages "Messages" "What the patient and the practice write to each other."
* #messages ^property[+].code = #filter
* #messages ^property[=].valueString = "Communication"
* #messages ^property[+].code = #filter
* #messages ^property[=].valueString = "CommunicationRequest"

* #documents "Documents" "Letters, scans, signed papers and other files, except the notes about a visit."
* #documents ^property[+].code = #filter
* #documents ^property[=].valueString = "DocumentReference?category:not=http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category|clinical-note,https://fhir-portal.example/ig/CodeSystem/portal-document|insurance-card"
* #documents ^property[+].code = #filter
* #documents ^property[=].valueString = "DocumentManifest"
* #documents ^property[+].code = #filter
* #documents ^property[=].valueString = "Composition"
* #documents ^property[+].code = #filter
* #documents ^property[=].valueString = "Contract"

* #forms "Forms" "Questionnaires and other things the practice asks the patient to fill in or do, and the answers."
* #forms ^property[+].code = #filter
* #forms ^property[=].valueString = "QuestionnaireResponse"
* #forms ^property[+].code = #filter
* #forms ^property[=].valueString = "Task?code:not=https://fhir-portal.example/ig/CodeSystem/portal-task|bill-dispute,https://fhir-portal.example/ig/CodeSystem/portal-task|payment-plan,https://fhir-portal.example/ig/CodeSystem/portal-task|propose-demographics,https://fhir-portal.example/ig/CodeSystem/portal-task|propose-insurance,https://fhir-portal.example/ig/CodeSystem/portal-task|propose-medications"

* #results "Test results" "Lab tests, X-rays and other scans, examinations, and measurements such as weight and blood pressure."
* #results ^property[+].code = #filter
* #results ^property[=].valueString = "Observation?category=http://terminology.hl7.org/CodeSystem/observation-category|laboratory,http://terminology.hl7.org/CodeSystem/observation-category|vital-signs,http://terminology.hl7.org/CodeSystem/observation-category|imaging,http://terminology.hl7.org/CodeSystem/observation-category|procedure,http://terminology.hl7.org/CodeSystem/observation-category|exam"
* #results ^property[+].code = #filter
* #results ^property[=].valueString = "DiagnosticReport"
* #results ^property[+].code = #filter
* #results ^property[=].valueString = "ImagingStudy"
* #results ^property[+].code = #filter
* #results ^property[=].valueString = "Media"
* #results ^property[+].code = #filter
* #results ^property[=].valueString = "Specimen"
* #results ^property[+].code = #filter
* #results ^property[=].valueString = "MolecularSequence"

* #medications "Medications" "Medicines that were prescribed, handed out, given or are being taken."
* #medications ^property[+].code = #filter
* #medications ^property[=].valueString = "MedicationRequest"
* #medications ^property[+].code = #filter
* #medications ^property[=].valueString = "MedicationStatement"
* #medications ^property[+].code = #filter
* #medications ^property[=].valueString = "MedicationDispense"
* #medications ^property[+].code = #filter
* #medications ^property[=].valueString = "MedicationAdministration"
* #medications ^property[+].code = #filter
* #medications ^property[=].valueString = "Task?code=https://fhir-portal.example/ig/CodeSystem/portal-task|propose-medications"

* #immunizations "Immunizations" "Vaccines that were given, and those that are due."
* #immunizations ^property[+].code = #filter
* #immunizations ^property[=].valueString = "Immunization"
* #immunizations ^property[+].code = #filter
* #immunizations ^property[=].valueString = "ImmunizationEvaluation"
* #immunizations ^property[+].code = #filter
* #immunizations ^property[=].valueString = "ImmunizationRecommendation"

* #health-summary "Health summary" "Health problems, allergies, operations, care plans and goals, family history, devices, and answers about daily life."
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "Observation?category=http://terminology.hl7.org/CodeSystem/observation-category|social-history,http://terminology.hl7.org/CodeSystem/observation-category|survey,http://terminology.hl7.org/CodeSystem/observation-category|activity,http://terminology.hl7.org/CodeSystem/observation-category|therapy,http://hl7.org/fhir/us/core/CodeSystem/us-core-category|sdoh,http://hl7.org/fhir/us/core/CodeSystem/us-core-category|functional-status,http://hl7.org/fhir/us/core/CodeSystem/us-core-category|disability-status,http://hl7.org/fhir/us/core/CodeSystem/us-core-category|cognitive-status,http://hl7.org/fhir/us/core/CodeSystem/us-core-category|treatment-intervention-preference,http://hl7.org/fhir/us/core/CodeSystem/us-core-category|care-experience-preference,http://hl7.org/fhir/us/core/CodeSystem/us-core-category|observation-adi-documentation"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "AdverseEvent"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "AllergyIntolerance"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "BodyStructure"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "CarePlan"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "CareTeam"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "Condition"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "DetectedIssue"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "Device"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "DeviceRequest"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "DeviceUseStatement"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "FamilyMemberHistory"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "Flag"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "Goal"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "GuidanceResponse"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "List"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "MeasureReport"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "NutritionOrder"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "Procedure"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "RequestGroup"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "ResearchSubject"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "RiskAssessment"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "ServiceRequest"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "SupplyDelivery"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "SupplyRequest"
* #health-summary ^property[+].code = #filter
* #health-summary ^property[=].valueString = "VisionPrescription"

* #visits "Visits" "Visits that took place, and the notes the doctor or nurse wrote about them."
* #visits ^property[+].code = #filter
* #visits ^property[=].valueString = "Encounter"
* #visits ^property[+].code = #filter
* #visits ^property[=].valueString = "EpisodeOfCare"
* #visits ^property[+].code = #filter
* #visits ^property[=].valueString = "ClinicalImpression"
* #visits ^property[+].code = #filter
* #visits ^property[=].valueString = "DocumentReference?category=http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category|clinical-note"

* #billing "Billing" "Bills, payments, what was charged, and what the health plan paid."
* #billing ^property[+].code = #filter
* #billing ^property[=].valueString = "Account"
* #billing ^property[+].code = #filter
* #billing ^property[=].valueString = "ChargeItem"
* #billing ^property[+].code = #filter
* #billing ^property[=].valueString = "Claim"
* #billing ^property[+].code = #filter
* #billing ^property[=].valueString = "ClaimResponse"
* #billing ^property[+].code = #filter
* #billing ^property[=].valueString = "ExplanationOfBenefit"
* #billing ^property[+].code = #filter
* #billing ^property[=].valueString = "Invoice"
* #billing ^property[+].code = #filter
* #billing ^property[=].valueString = "PaymentNotice"
* #billing ^property[+].code = #filter
* #billing ^property[=].valueString = "Task?code=https://fhir-portal.example/ig/CodeSystem/portal-task|bill-dispute,https://fhir-portal.example/ig/CodeSystem/portal-task|payment-plan"

* #sharing "Sharing" "Who may see this record and act for the patient, and who has looked at it."
* #sharing ^property[+].code = #filter
* #sharing ^property[=].valueString = "AuditEvent"
* #sharing ^property[+].code = #filter
* #sharing ^property[=].valueString = "Consent"
* #sharing ^property[+].code = #filter
* #sharing ^property[=].valueString = "RelatedPerson"

ValueSet: PortalSectionCodes
Id: portal-section
Title: "Portal Sections"
Description: "All sections of a record."
* insert Published
* include codes from system PortalSection
