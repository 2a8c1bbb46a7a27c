CodeSystem: FormTask
Id: form-task
Title: "Form Task"
Description: "What a Task about a form asks for, and what its inputs and outputs are."
* insert Published
* ^caseSensitive = true
* #complete-questionnaire "Fill in a form" "The patient, or somebody who acts for them, is to answer a questionnaire."
* #pre-register "Pre-register" "The same, before a visit: the Appointment is the focus."
* #review-answers "Look at answers" "Staff decide what of the answers becomes part of the record."
* #questionnaire "Questionnaire" "The form that is to be filled in."
* #answers "Answers" "The QuestionnaireResponse that answers it."
* #reminder "Reminder" "How many days before the due date a reminder is sent."
* #proposal "Proposal" "What the answers say, as a contained resource that could become part of the record."
* #before "Before" "What a proposal would change, as it was when the proposal was made."
* #contact-to-prove "Contact to prove" "A new address or number, to which a code was sent."
* #contact-proved "Proved contact" "An address or number from which the code came back."
* #accepted "Accepted" "What became part of the record."
* #refused "Refused" "A proposal that did not."

CodeSystem: InformationOrigin
Id: information-origin
Title: "Origin of Information"
Description: "Tags in `meta.tag` that say where a resource comes from. They change nothing about who sees it."
* insert Published
* ^caseSensitive = true
* #patient-reported "Reported by the patient" "The patient, or somebody who acts for them, has said so in a form; staff have accepted it."
* #patient-supplied "Supplied by the patient" "A document that the patient, or somebody who acts for them, has sent."

Extension: ProposalBase
Id: proposal-base
Title: "Base of a Proposal"
Description: "The version of the resource that a proposal would change."
Context: Task.input
* insert Published
* value[x] only Reference

Instance: request-form
InstanceOf: OperationDefinition
Usage: #definition
Title: "Ask for a form"
Description: "Asks a patient, or who acts for them, to fill in one form or a set of them. Each becomes a Task in the record. A form that is asked for already is not asked for twice: its Task is answered as it is. The patient and the proxies who may act in forms are told that there is something to do, and reminded."
* insert Operation(request-form)
* name = "RequestForm"
* affectsState = true
* insert OnInstance(Patient)
* insert Parameter(in, questionnaire, 0, 20, canonical, [["A form, by `url` or `url|version`. There is one at least, or a visit type."]])
* insert Parameter(in, visit-type, 0, 1, Coding, [["All active forms of the practice that name this visit type in `useContext` (code `workflow`) are asked for: the set of the visit type."]])
* insert Parameter(in, due, 0, 1, date, [["The day by which the answers are wanted."]])
* insert Parameter(in, answer-by, 0, 10, Reference, [["Who may answer: the Patient, or RelatedPersons of the patient. Without any, everybody who may act in forms."]])
* insert Parameter(in, appointment, 0, 1, Reference, [["The patient's Appointment that the form is for. It makes the Task one to pre-register."]])
* insert Parameter(in, reminder, 0, 5, integer, [["How many days before `due` a reminder goes out: 0 to 60. Without any: 3 and 1."]])
* insert Parameter(in, note, 0, 1, string, [["What staff want to say with it, in one line. It is shown with the form, and in no mail."]])
* insert Parameter(out, task, 1, *, Reference, [["The Task of each form."]])
* insert Parameter(out, asked, 1, 1, integer, [["How many of them are new."]])

Instance: cancel-form
InstanceOf: OperationDefinition
Usage: #definition
Title: "Ask for a form no more"
Description: "Ends a request for a form that was not answered. Answers that were begun stay what they are; reminders stop."
* insert Operation(cancel-form)
* name = "CancelForm"
* affectsState = true
* insert OnInstance(Task)
* insert Parameter(in, reason, 1, 1, string, [["Why. It stands in the Task and in the Provenance."]])
* insert Parameter(out, task, 1, 1, Reference, [["The Task."]])
* insert Parameter(out, status, 1, 1, code, [["`cancelled`."]])

Instance: populate
InstanceOf: OperationDefinition
Usage: #definition
Title: "Fill in what is known"
Description: "Returns answers to begin with (SDC `$populate`): what the form itself says, what its expressions find in what the caller may see, and the answers that were handed in last time. Nothing is stored."
* insert Operation(populate)
* name = "Populate"
* affectsState = false
* insert OnInstance(Questionnaire)
* insert Parameter(in, subject, 1, 1, Reference, [["The Patient."]])
* insert Parameter(in, carry-forward, 0, 1, boolean, [["Whether the answers that were handed in last time are carried forward. Without it, they are."]])
* insert Parameter(out, response, 1, 1, QuestionnaireResponse, [["The answers, `in-progress`, with whoever asked as `source`."]])

Instance: next-question
InstanceOf: OperationDefinition
Usage: #definition
Title: "Ask the next question"
Description: "Asks a form one question at a time (SDC `$next-question`): takes the answers so far, and returns them with a contained Questionnaire of what was asked and the next question that its conditions lead to; at the end they are the answers to the whole form, to be handed in. Nothing is stored."
* insert Operation(next-question)
* name = "NextQuestion"
* affectsState = false
* insert OnType(Questionnaire)
* insert Parameter(in, questionnaire-response, 1, 1, QuestionnaireResponse, [["The answers so far; its `questionnaire` is the canonical of the form to begin with, later the contained one with `derivedFrom`."]])
* insert Parameter(out, return, 1, 1, QuestionnaireResponse, [["The same with the next question, `in-progress`; `completed` and of the form itself when there is none."]])

Instance: extract
InstanceOf: OperationDefinition
Usage: #definition
Title: "Take resources out of answers"
Description: "Returns what the answers say as a transaction Bundle (SDC `$extract`, by definition and by template), and puts it into the queue of what staff have to decide about. Nothing becomes part of the record before that. Answers that are extracted already are not put there twice."
* insert Operation(extract)
* name = "Extract"
* affectsState = true
* insert OnInstance(QuestionnaireResponse)
* insert Parameter(out, return, 1, 1, Bundle, [["The resources, as a transaction that nobody has carried out."]])
* insert Parameter(out, review, 0, 1, Reference, [["The Task by which staff decide. Absent where there is nothing to decide about."]])

Instance: review-form
InstanceOf: OperationDefinition
Usage: #definition
Title: "Decide about answers"
Description: "Accepts, changes or refuses each thing that answers propose, in one transaction: all of it happens, or nothing. What is accepted becomes part of the record with its Provenance: who said so, who accepted it, and in which answers."
* insert Operation(review-form)
* name = "ReviewForm"
* affectsState = true
* insert OnInstance(Task)
* parameter[+].name = #decision
* parameter[=].use = #in
* parameter[=].min = 0
* parameter[=].max = "200"
* parameter[=].documentation = "A decision about one proposal."
* insert Part(in, proposal, 1, 1, string, [["The id of the contained resource."]])
* insert Part(in, action, 1, 1, code, [["`accept` or `refuse`."]])
* insert Part(in, field, 0, *, string, [["Of a proposal about the Patient, the elements that are accepted; without any, all that it proposes."]])
* insert Part(in, resource, 0, 1, Resource, [["What is accepted in place of the proposal: the same type, for the same patient."]])
* insert Parameter(in, others, 0, 1, code, [["What to do with proposals that no decision names: `accept` or `refuse`. Without it there has to be a decision about each."]])
* insert Parameter(in, version, 0, 1, string, [["The version of the Patient that was looked at, when it has changed since the answers were handed in."]])
* insert Parameter(in, reason, 0, 1, string, [["Why, for the Task and the Provenance."]])
* insert Parameter(out, status, 1, 1, code, [["`completed`, or `rejected` when nothing was accepted."]])
* insert Parameter(out, accepted, 0, *, Reference, [["What became part of the record."]])
