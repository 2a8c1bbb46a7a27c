CodeSystem: PortalMessage
Id: portal-message
Title: "Portal Message"
Description: "What a message was that a practice sent through the portal (`Communication.topic` of a `sent-message`)."
* insert Published
* ^caseSensitive = true
* #app-ended "An app ended" "The access of an app to a record was ended."
* #app-ended-by-record "An app ended by the record" "Whose record it is ended the access of an app that somebody who acts for them had connected."
* #app-ended-by-practice "An app ended by the practice" "The practice ended the access of an app."
* #app-narrowed "An app narrowed" "An app may use less of a record."
* #app-made-by-proxy "An app connected by somebody else" "Somebody who acts for the patient connected an app."
* #invitation-link "Invitation" "The link of an invitation to the portal."
* #invitation-code "Security code" "The security code of an invitation."
* #invitation-resent "Invitation sent again" "The link of a further attempt of an invitation."
* #security-recovery-started "Recovery started" "The practice has begun to help somebody back into their account."
* #account-created "Account made" "An account was made for a record."
* #record-added "Record added" "A record was added to an account."
* #proxy-ended "A grant ended" "The practice ended that somebody acts for the patient."
* #record-shared-by-proxy "Shared by somebody else" "Somebody who acts for the patient shared part of the record."
* #security-acting-ended "Acting ended" "The practice ended that the recipient acts for somebody."
* #security-disabled-at-practice "Access switched off" "The practice closed its records for an account."
* #security-enabled-at-practice "Access switched on" "The practice opened its records for an account again."
* #security-sessions-ended "Signed out" "The practice ended sessions of an account."
* #security-record-merged "Records joined" "Two records of the practice were joined."
* #security-merge-undone "Records taken apart" "Two records that were joined were taken apart again."
* #security-renewal-required "Renewal required" "The practice asks to renew how one signs in."
* #appointment-reminder "Reminder of an appointment" "An appointment comes. It does not say which."
* #appointment-freed "A time became free" "A time is held for somebody who waits for one."
* #message-new "New message" "There is a message of the practice to read."
* #document-reviewed "Answer to a document" "The practice has looked at a document that was sent."
* #bill-answered "Answer about a bill" "There is an answer to what was said about a bill."
* #bill-due "Reminder of a bill" "A part of a bill is to be paid soon, as was agreed."
* #refill-answered "Answer to a refill" "There is an answer to a refill that was asked for."
* #form-asked "Form asked for" "The practice asks for a form to be filled in."
* #form-reminder "Reminder of a form" "A form is still to be filled in."
* #proposal-answered "Answer to a proposed change" "There is an answer to a change that was proposed."
* #coverage-ends "Insurance ends" "An insurance on file ends soon."
* #security-contact-on-file "Contact on file changed" "How the practice reaches the patient was changed."

CodeSystem: SendOutcome
Id: send-outcome
Title: "Send Outcome"
Description: "Why a message did not arrive (`Communication.statusReason` of a `sent-message`)."
* insert Published
* ^caseSensitive = true
* #bounced "Bounced" "It came back: its address takes nothing."
* #not-delivered "Not delivered" "It was given up after several tries."
* #no-contact "No contact" "The person has no contact that is proved and takes messages."
* #superseded "Superseded" "What it was for was over before it was sent."

ValueSet: PortalMessageCodes
Id: portal-message
Title: "Portal Message"
Description: "What a message was that a practice sent through the portal."
* insert Published
* include codes from system https://fhir-portal.example/ig/CodeSystem/portal-message

ValueSet: SendOutcomeCodes
Id: send-outcome
Title: "Send Outcome"
Description: "Why a message did not arrive."
* insert Published
* include codes from system https://fhir-portal.example/ig/CodeSystem/send-outcome

Profile: SentMessage
Parent: Communication
Id: sent-message
Title: "Sent Message"
Description: """
That a practice sent somebody a message through the portal: what kind, by which channel, when, and
whether it arrived. Its words, its address and what it carried are not in it. It is in the record of
the patient whom the message was for; one that went to somebody who acts for patients alone is in
none.
"""
* insert Published
* contained 0..0
* payload 0..0
* note 0..0
* status from SentMessageStatus (required)
* statusReason from SendOutcomeCodes (required)
* statusReason ^short = "Why it did not arrive"
* category 1..1 MS
* medium 0..1 MS
* medium ^short = "Mail or SMS; none where nothing could be sent"
* subject only Reference(Patient)
* topic 1..1 MS
* topic from PortalMessageCodes (extensible)
* about only Reference(Task)
* about ^short = "The invitation"
* sent ^short = "When it was handed over"
* recipient 1..*
* recipient only Reference(Patient or RelatedPerson)
* sender only Reference(Organization)
* sender ^short = "The practice"

ValueSet: SentMessageStatus
Id: sent-message-status
Title: "Sent Message Status"
Description: "How far a message has come."
* insert Published
* http://hl7.org/fhir/event-status#in-progress "In Progress"
* http://hl7.org/fhir/event-status#completed "Completed"
* http://hl7.org/fhir/event-status#not-done "Not Done"
