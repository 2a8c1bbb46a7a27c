Instance: portal-people
InstanceOf: OperationDefinition
Usage: #definition
Title: "People with an account for a record"
Description: "Who can have to do with a patient's record in the portal: the patient and the people who are recorded as related to them, each with the Person that stands for them in this practice, if there is one. It is how staff and an EHR get from a patient to the Person on which the operations for accounts are called. It returns no secret, no user name, no contact and nothing that another practice knows."
* insert Operation(portal-people)
* name = "PortalPeople"
* affectsState = false
* insert OnInstance(Patient)
* parameter[+].name = #people
* parameter[=].use = #out
* parameter[=].min = 0
* parameter[=].max = "*"
* parameter[=].documentation = "One way from a Person to the record, the patient's own first."
* parameter[=].part[+].name = #person
* parameter[=].part[=].use = #out
* parameter[=].part[=].min = 1
* parameter[=].part[=].max = "1"
* parameter[=].part[=].documentation = "The Person."
* parameter[=].part[=].type = #Reference
* parameter[=].part[+].name = #as
* parameter[=].part[=].use = #out
* parameter[=].part[=].min = 1
* parameter[=].part[=].max = "1"
* parameter[=].part[=].documentation = "The Patient, or a RelatedPerson of the patient, that the Person is."
* parameter[=].part[=].type = #Reference
* parameter[=].part[+].name = #assurance
* parameter[=].part[=].use = #out
* parameter[=].part[=].min = 0
* parameter[=].part[=].max = "1"
* parameter[=].part[=].documentation = "How that was proved (`Person.link.assurance`). `level2` and above open the record."
* parameter[=].part[=].type = #code
* parameter[=].part[+].name = #status
* parameter[=].part[=].use = #out
* parameter[=].part[=].min = 1
* parameter[=].part[=].max = "1"
* parameter[=].part[=].documentation = "`none`: nobody has an account as this Person. `enabled`, `disabled`."
* parameter[=].part[=].type = #code

CodeSystem: PortalFeature
Id: portal-feature
Title: "Portal Feature"
Description: "What a practice offers its patients on the portal, beside reading their records."
* insert Published
* ^caseSensitive = true
* #bill-pay "Paying bills" "Bills are paid on the portal, if the deployment has a payment provider."
* #messages "Messages" "Patients write to the practice."
* #forms "Forms" "Patients fill in forms."
* #refills "Refills" "Patients ask for more of a medicine."
* #self-booking "Booking" "Patients book appointments of some services themselves."

ValueSet: PortalFeatureCodes
Id: portal-feature
Title: "Portal Feature"
Description: "What a practice offers its patients on the portal."
* insert Published
* include codes from system https://fhir-portal.example/ig/CodeSystem/portal-feature

Extension: PortalFeatureExtension
Id: portal-feature
Title: "Portal Feature"
Description: "Something that a practice offers its patients on the portal. In the brands Bundle it is repeated for each; the CapabilityStatement says with `portal-features` where that Bundle is."
Context: Organization
* insert Published
* value[x] only code
* value[x] 1..1
* valueCode from PortalFeatureCodes (required)

Extension: PortalFeatures
Id: portal-features
Title: "Portal Features"
Description: "Where it is told what each practice of this server offers its patients: one server has many practices, and what they offer changes from day to day."
Context: CapabilityStatement.rest
* insert Published
* value[x] only url
* value[x] 1..1
