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
