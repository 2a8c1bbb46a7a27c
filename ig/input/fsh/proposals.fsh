CodeSystem: PortalDocument
Id: portal-document
Title: "Portal Document"
Description: "What a document of the portal is, where it decides in which section it is shown (`DocumentReference.category`)."
* insert Published
* ^caseSensitive = true
* #insurance-card "Insurance card" "A picture of the front or the back of an insurance card."

Extension: ProposalField
Id: proposal-field
Title: "Field of a Proposal"
Description: "The name of an element that a proposal would change, or that was decided about."
Context: Task.input, Task.output
* insert Published
* value[x] only string

Extension: ProposalReason
Id: proposal-reason
Title: "Reason of a Decision"
Description: "Why a proposal was decided about like this, for whoever proposed it."
Context: Task.output
* insert Published
* value[x] only string

Extension: PatientSupplied
Id: patient-supplied
Title: "Supplied by the Patient"
Description: "A picture comes from the patient, or from somebody who acts for them, and not from the practice."
Context: Attachment
* insert Published
* value[x] only boolean

Instance: propose-update
InstanceOf: OperationDefinition
Usage: #definition
Title: "Propose a change"
Description: "A patient, or a proxy who may act in the section, proposes to change personal details (section demographics) or insurance (insurance), or says that a medicine is not taken (medications). Each section becomes one Task, `requested`, with what was and what is proposed as contained resources; the practice decides field by field. What the practice lets people change themselves is changed at once."
* insert Operation(propose-update)
* name = "ProposeUpdate"
* affectsState = true
* insert OnInstance(Patient)
* insert Parameter(in, patient, 0, 1, Patient, [["The personal details as they are to be: each element whole. What is as on file is left alone, and so is what is not there. Elements: `name`, `telecom`, `gender`, `birthDate`, `address`, `maritalStatus`, `communication`, `contact`, and the extensions for pronouns and gender identity."]])
* insert Parameter(in, clear, 0, 20, code, [["A field that is to be empty: one of these elements, `photo`, `pronouns` or `gender-identity`."]])
* insert Parameter(in, photo, 0, 1, Attachment, [["A picture for `Patient.photo`, in `data`. It is written anew, no larger than 1024 by 1024, without what the camera wrote into it."]])
* insert Parameter(in, version, 0, 1, string, [["The version of the Patient (`meta.versionId`) that was looked at. Needed for all but `photo`. Where a field was changed since, nothing is proposed (412)."]])
* parameter[+].name = #coverage
* parameter[=].use = #in
* parameter[=].min = 0
* parameter[=].max = "10"
* parameter[=].documentation = "An insurance that is new, another one now, or over."
* insert Part(in, action, 1, 1, code, [["`new`, `change` or `end`."]])
* insert Part(in, target, 0, 1, Reference, [["The Coverage that is changed or ended."]])
* insert Part(in, version, 0, 1, string, [["Its version that was looked at. Needed for `change`."]])
* insert Part(in, coverage, 0, 1, Coverage, [["The Coverage as it is to be, each element whole: `type`, `subscriber` (this patient, or somebody by `display`), `subscriberId`, `dependent`, `relationship`, `period`, `payor` (by `display`), `class`, `order`, `identifier`. For `new` and `change`."]])
* insert Part(in, end, 0, 1, date, [["The last day of what ends."]])
* insert Part(in, front, 0, 1, Attachment, [["A picture of the front of the card."]])
* insert Part(in, back, 0, 1, Attachment, [["A picture of the back of the card."]])
* parameter[+].name = #not-taken
* parameter[=].use = #in
* parameter[=].min = 0
* parameter[=].max = "20"
* parameter[=].documentation = "A medicine of the list that is not taken."
* insert Part(in, target, 1, 1, Reference, [["The MedicationRequest or MedicationStatement."]])
* insert Part(in, since, 0, 1, date, [["Since when."]])
* insert Part(in, note, 0, 1, string, [["Why, in one line."]])
* insert Parameter(in, note, 0, 1, string, [["A word to the practice, in one line."]])
* insert Parameter(out, task, 0, 5, Reference, [["The Task of each section; of personal details there may be three: what was changed at once, which is `completed`, contacts that change once they are proved, and the rest."]])
* insert Parameter(out, changed, 0, *, string, [["A field that was changed at once."]])
* insert Parameter(out, to-prove, 0, *, ContactPoint, [["A new contact to which a code was sent: it waits for `$prove-contact`."]])

Instance: cancel-proposal
InstanceOf: OperationDefinition
Usage: #definition
Title: "Take a proposal back"
Description: "Whoever proposed a change takes it back while nobody has decided about it; the patient any that was made for them."
* insert Operation(cancel-proposal)
* name = "CancelProposal"
* affectsState = true
* insert OnInstance(Task)
* insert Parameter(out, task, 1, 1, Reference, [["The Task."]])
* insert Parameter(out, status, 1, 1, code, [["`cancelled`."]])

Instance: review-proposal
InstanceOf: OperationDefinition
Usage: #definition
Title: "Decide about a proposed change"
Description: "Accepts, changes or refuses what a `$propose-update` proposes, field by field, in one transaction: all of it happens, or nothing. A field that was changed in the record since it was proposed is written over only by who says that they have looked at that version. Whoever proposed it is told that there is an answer."
* insert Operation(review-proposal)
* name = "ReviewProposal"
* affectsState = true
* insert OnInstance(Task)
* parameter[+].name = #decision
* parameter[=].use = #in
* parameter[=].min = 0
* parameter[=].max = "200"
* parameter[=].documentation = "A decision about a proposal, or about some of its fields."
* insert Part(in, proposal, 1, 1, string, [["The id of the contained resource."]])
* insert Part(in, field, 0, *, string, [["The fields that this is about; without any, all that no other decision names. Of what is new there are none."]])
* insert Part(in, action, 1, 1, code, [["`accept` or `refuse`."]])
* insert Part(in, resource, 0, 1, Resource, [["What is accepted in place of the proposal: the same type, with these fields."]])
* insert Part(in, version, 0, 1, string, [["The version of the Patient or Coverage that was looked at, where a field was changed since it was proposed."]])
* insert Part(in, reason, 0, 1, string, [["Why; whoever proposed it reads it."]])
* insert Parameter(in, others, 0, 1, code, [["What to do with what no decision names: `accept` or `refuse`. Without it there has to be a decision about each field."]])
* insert Parameter(in, reason, 0, 1, string, [["Why, for all of it."]])
* insert Parameter(out, status, 1, 1, code, [["`completed`, or `rejected` when nothing was accepted."]])
* insert Parameter(out, accepted, 0, *, Reference, [["What was changed or made."]])

Instance: prove-contact
InstanceOf: OperationDefinition
Usage: #definition
Title: "Prove a new contact"
Description: "Says the code that was sent to a mail address or telephone number which somebody proposed for the record. The practice sees that it was proved; where it lets people change their contacts themselves, they are changed with the last one."
* insert Operation(prove-contact)
* name = "ProveContact"
* affectsState = true
* insert OnInstance(Task)
* insert Parameter(in, contact, 1, 1, string, [["The address or number, as `to-prove` had it."]])
* insert Parameter(in, code, 0, 1, string, [["The code that came. Without it, another one is sent."]])
* insert Parameter(out, task, 1, 1, Reference, [["The Task."]])
* insert Parameter(out, proved, 1, 1, boolean, [["Whether it is proved now."]])
* insert Parameter(out, changed, 0, 1, boolean, [["Whether the record was changed with it."]])

Instance: proposed-details
InstanceOf: Task
Usage: #example
Title: "A proposed telephone number"
Description: "A patient proposes another telephone number; the practice has not decided yet."
* contained[+] = proposed-number
* contained[+] = number-before
* status = #requested
* intent = #proposal
* code = $portal-task#propose-demographics
* for = Reference(adult)
* requester = Reference(adult)
* authoredOn = "2026-03-02T09:30:00Z"
* input[+].extension[+].url = "https://fhir-portal.example/ig/StructureDefinition/proposal-base"
* input[=].extension[=].valueReference.reference = "Patient/adult/_history/3"
* input[=].extension[+].url = "https://fhir-portal.example/ig/StructureDefinition/proposal-field"
* input[=].extension[=].valueString = "telecom"
* input[=].type = FormTask#proposal
* input[=].valueReference.reference = "#p1"
* input[+].type = FormTask#before
* input[=].valueReference.reference = "#b1"

Instance: proposed-number
InstanceOf: Patient
Usage: #inline
* id = "p1"
* telecom.system = #phone
* telecom.use = #mobile
* telecom.value = "+1 312 555 0142"

Instance: number-before
InstanceOf: Patient
Usage: #inline
* id = "b1"
* telecom.system = #phone
* telecom.use = #mobile
* telecom.value = "+1 312 555 0199"
