CodeSystem: StaffTaskReason
Id: staff-task-reason
Title: "Staff Task Reason"
Description: "Why staff have something to see to (`Task.reasonCode` of a `staff-task`)."
* insert Published
* ^caseSensitive = true
* #locked "Locked" "Too many tries were wrong, or they asked for help."
* #unverified-contact "No proved contact" "No contact of the account was proved."
* #no-recovery-contact "No contact to recover by" "The account has no contact that can get a code."
* #no-account "No account" "There is no account."
* #near-miss "Something differs" "What they said differs from the record in something."
* #ambiguous "Several records" "More than one record may be meant."
* #not-found "Not found" "No record is like it."
* #minor "Under age" "Somebody under age registered by themselves."
* #no-second-proof "No second proof" "There is no second contact, and no code from the practice."
* #has-account "Has an account" "There is an account already."
* #expired "Expired" "The invitation was over."
* #closed "Closed" "The practice has ended the portal for the person, who registered by themselves."
* #bounced "Bounced" "The message came back: its address takes nothing."
* #not-delivered "Not delivered" "The message could not be delivered."
* #other-amount "Another amount" "A payment provider took another amount than was agreed."
* #paid-after-end "Paid after its end" "A payment provider took money for a payment that had ended."
* #no-answer "No answer" "A payment provider has not said for a day how a payment ended."
* #provider-gone "Provider gone" "A payment was begun at a provider that is not set up any more."
* #calendar-changed "The calendar changed" "A Schedule, a Slot, a role or a Location says now that somebody else's time is taken."
* #no-contact "No contact" "The account has no contact that is proved and takes messages."

ValueSet: StaffTaskCode
Id: staff-task-code
Title: "Staff Task Code"
Description: "What a Task for staff is about."
* insert Published
* $portal-task#recovery-help
* $portal-task#activation-help
* $portal-task#undelivered-message
* $portal-task#payment-mismatch
* $portal-task#overlapping-appointments

ValueSet: StaffTaskReasonCodes
Id: staff-task-reason
Title: "Staff Task Reason"
Description: "Why staff have something to see to."
* insert Published
* include codes from system https://fhir-portal.example/ig/CodeSystem/staff-task-reason

Profile: StaffTask
Parent: Task
Id: staff-task
Title: "Staff Task"
Description: """
Something for a practice's staff to see to: somebody could not get into their account or make one,
a message did not arrive, a payment provider and the bills disagree, or appointments turned out to
overlap. The portal makes it; staff complete it on their pages or by
`$task-done`, a system of the practice by an update. It holds no address, no name, no account and
nothing that anybody typed. Its tag says which permission of an access level shows it.
"""
* insert Published
* contained 0..0
* intent = #order
* code 1..1 MS
* code from StaffTaskCode (required)
* code ^short = "What it is about"
* reasonCode 1..1 MS
* reasonCode from StaffTaskReasonCodes (required)
* reasonCode ^short = "Why"
* description 1..1 MS
* description ^short = "The same in plain words"
* focus only Reference(Task or Invoice)
* focus ^short = "The invitation that it came of, or the bill"
* for only Reference(Patient)
* for MS
* for ^short = "The patient, where exactly one is known to be concerned"
* authoredOn 1..1 MS
* owner only Reference(Organization or Practitioner)
* owner ^short = "The practice; when it is completed, who of its staff saw to it"

Instance: task-done
InstanceOf: OperationDefinition
Usage: #definition
Title: "A task of staff is done"
Description: "Completes a Task of the profile `staff-task`: somebody saw to it. One that is over stays as it is. A system of the practice may as well update the Task. It is for whoever the tag of the Task shows it to."
* insert Operation(task-done)
* name = "TaskDone"
* affectsState = true
* insert OnInstance(Task)
* insert Parameter(in, reason, 0, 1, string, [["What was done. It stands in the Task."]])
* insert Parameter(out, task, 1, 1, Reference, [["The Task."]])
* insert Parameter(out, status, 1, 1, code, [["`completed`, or as it was when it was over already."]])
