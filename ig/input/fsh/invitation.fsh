RuleSet: HandedOut
* insert Parameter(out, link, 0, 1, url, [["Where the invited person begins. Shown this once, and only where it is handed over with the code: never by mail or SMS."]])
* insert Parameter(out, security-code, 0, 1, string, [["The security code, to be handed over. Shown this once. It is left out where it goes to another contact by itself."]])
* insert Parameter(out, portal-id, 0, 1, string, [["Six digits, for whoever begins from a printed sheet. Shown this once."]])
* insert Parameter(out, activation-word, 0, 1, string, [["The word that belongs to the portal ID. Shown this once."]])

RuleSet: InvitationState
* insert Parameter(out, invitation, 1, 1, Reference, [["The Task of the invitation."]])
* insert Parameter(out, status, 1, 1, code, [["How far it has come: a code of `invitation-status`."]])
* insert Parameter(out, channel, 0, 1, code, [["How it goes out: `mail`, `sms`, `letter`, `paper`, `desk`."]])
* insert Parameter(out, code-by, 0, 1, code, [["How the security code goes: `mail` or `sms` to another contact, or `hand` for handing it over."]])
* insert Parameter(out, expires, 0, 1, instant, [["When it can no longer be used."]])

Instance: portal-invite
InstanceOf: OperationDefinition
Usage: #definition
Title: "Invite to the portal"
Description: "Invites a patient, or somebody who acts for them, to have an account. It makes the Task of the invitation, the RelatedPerson where there is none, and a proposed grant that begins with the redemption. Nobody has credentials before they choose their own. Link and security code never go the same way."
* insert Operation(portal-invite)
* name = "PortalInvite"
* affectsState = true
* insert OnInstance(Patient)
* insert Parameter(in, kind, 1, 1, code, [["Who is invited: `self`, `guardian`, `representative`, `caregiver` or `payer`."]])
* insert Parameter(in, patient, 0, 9, Reference, [["Further patients of the practice for whom the same person is invited; not with `self`."]])
* insert Parameter(in, related-person, 0, 10, Reference, [["The RelatedPerson who is invited, one for each patient at most. A patient without one gets a new one."]])
* insert Parameter(in, name, 0, 1, HumanName, [["The name of a new RelatedPerson."]])
* insert Parameter(in, relationship, 0, 1, CodeableConcept, [["What a new RelatedPerson is to the patient."]])
* insert Parameter(in, telecom, 0, 10, ContactPoint, [["How a new RelatedPerson is reached: `email`, `phone` or `sms`."]])
* insert Parameter(in, force, 0, 1, boolean, [["Make a new RelatedPerson though there seems to be the same one, and invite who wanted no more invitations, or for whom the portal was ended."]])
* parameter[+].name = #section
* parameter[=].use = #in
* parameter[=].min = 0
* parameter[=].max = "*"
* parameter[=].documentation = "A section that the grant opens. Without any, the preset of the kind counts."
* insert Part(in, code, 1, 1, code, [["A code of `portal-section`."]])
* insert Part(in, act, 0, 1, boolean, [["Whether the person may also act in it."]])
* insert Parameter(in, period, 0, 1, Period, [["When the grant counts. A representative's has an end; a guardian's ends when the patient comes of age, at the latest."]])
* insert Parameter(in, basis, 0, 1, code, [["On what the grant stands: `parent`, `guardian`, `court-order`, `power-of-attorney`, `consent-form`. Not for `self`."]])
* insert Parameter(in, evidence, 0, 10, Reference, [["The DocumentReference that proves it, one for each patient at most. A representative's is needed."]])
* insert Parameter(in, channel, 0, 1, code, [["How the invitation goes out: `mail`, `sms`, `letter`, `paper`, `desk`. Without it, by the first contact on file."]])
* insert Parameter(in, contact, 0, 1, string, [["The mail address or telephone number it goes to, in place of the one on file."]])
* insert Parameter(in, lifetime-hours, 0, 1, integer, [["How long it can be used: 1 to 504 hours. Without it, as the practice has it: 72."]])
* insert Parameter(in, reason, 0, 1, string, [["Why, for the Provenance."]])
* insert Parameter(in, idempotency-key, 0, 1, string, [["The same key with the same parameters is the same invitation, however often it is sent: 1 to 100 signs."]])
* insert InvitationState
* insert Parameter(out, related-person, 0, *, Reference, [["As whom the person is invited."]])
* insert Parameter(out, grant, 0, *, Reference, [["The proposed grants."]])
* insert HandedOut

Instance: invite-resend
InstanceOf: OperationDefinition
Usage: #definition
Title: "Send an invitation again"
Description: "Makes a new attempt of an invitation that nobody has redeemed. What was sent before is good until this one is stored, and void from then on."
* insert Operation(invite-resend)
* name = "InviteResend"
* affectsState = true
* insert OnInstance(Task)
* insert Parameter(in, channel, 0, 1, code, [["How it goes out this time; without it, as before."]])
* insert Parameter(in, contact, 0, 1, string, [["The address or number it goes to; without it, as before."]])
* insert Parameter(in, lifetime-hours, 0, 1, integer, [["How long it can be used from now on: 1 to 504 hours."]])
* insert Parameter(in, reason, 0, 1, string, [["Why, for the Provenance."]])
* insert InvitationState
* insert HandedOut

Instance: invite-revoke
InstanceOf: OperationDefinition
Usage: #definition
Title: "Take an invitation back"
Description: "Ends an invitation that has opened nothing yet. Its link and codes lead nowhere, and the proposed grants are rejected. Of one that waits to be confirmed, the links of whoever used it are taken away as well."
* insert Operation(invite-revoke)
* name = "InviteRevoke"
* affectsState = true
* insert OnInstance(Task)
* insert Parameter(in, reason, 1, 1, string, [["Why. It stands in the Task and in the Provenance."]])
* insert Parameter(in, no-more, 0, 1, boolean, [["The person wants no more invitations: no event invites them again."]])
* insert Parameter(out, invitation, 1, 1, Reference, [["The Task of the invitation."]])
* insert Parameter(out, status, 1, 1, code, [["`revoked`."]])

Instance: print-instructions
InstanceOf: OperationDefinition
Usage: #definition
Title: "Print the instructions of an invitation"
Description: "Makes a sheet to hand over or to post: where to begin, as address and QR code, security code, portal ID, activation word, until when, and whom to call. Each printing is a new attempt: the codes of the one before are void. The sheet holds initials, no name, and nothing about anybody's health."
* insert Operation(print-instructions)
* name = "PrintInstructions"
* affectsState = true
* insert OnInstance(Task)
* insert Parameter(in, format, 0, 1, code, [["`pdf` (the default) or `html`."]])
* insert Parameter(in, language, 0, 1, code, [["The language of the sheet: `en` (the default) or `es`."]])
* insert Parameter(in, large-print, 0, 1, boolean, [["Larger letters, on more than one page if need be."]])
* insert Parameter(in, lifetime-hours, 0, 1, integer, [["How long it can be used from now on: 1 to 504 hours."]])
* insert Parameter(in, reason, 0, 1, string, [["Why, for the Provenance."]])
* insert Parameter(out, return, 1, 1, Binary, [["The sheet. It is not stored."]])

CodeSystem: PortalTask
Id: portal-task
Title: "Portal Task"
Description: "What a Task of the portal is about (`Task.code`)."
* insert Published
* ^caseSensitive = true
* #portal-invite "Invitation to the portal" "Somebody is invited to have an account for the record of the patient in `Task.for`."
* #recovery-help "Help to get back in" "Somebody could not get back into their account."
* #activation-help "Help to get an account" "Somebody could not make the account they were invited to, or asked for."
* #undelivered-message "Message that did not arrive" "A message of the portal did not reach whom it was for."
* #payment-mismatch "Payment that disagrees" "What a payment provider says of a payment, and what the bill says, are not the same money."
* #bill-dispute "Word against a bill" "Somebody says that the bill in `Task.focus` is not right."
* #payment-plan "Payment plan" "The bill in `Task.focus` is to be paid in parts, by a day each."
* #transmission "Sending to somebody outside" "Somebody has part of the record sent to somebody outside; `Task.focus` is a document of it."
* #overlapping-appointments "Appointments that overlap" "Appointments turned out to take the time of the same person, room or device."
* #refill-request "Refill request" "Somebody asks for more of the medicine in `Task.focus`."
* #review-document "Document to look at" "Somebody of the patient's side sent the document in `Task.focus`."
* #propose-demographics "Proposed personal details" "Somebody proposes that personal details of the patient are changed."
* #propose-insurance "Proposed insurance" "Somebody proposes that insurance of the patient is added, changed or ended."
* #propose-medications "Medicine that is not taken" "Somebody says that a medicine of the patient's list is not taken."

CodeSystem: InvitationStatus
Id: invitation-status
Title: "Invitation Status"
Description: "How far an invitation to the portal has come (`Task.businessStatus`)."
* insert Published
* ^caseSensitive = true
* #queued "Queued" "It waits to be sent."
* #sent "Sent" "A mail server or an SMS gateway has taken it, or it was printed. Nobody has said that it arrived: of mail nobody ever does."
* #delivered "Delivered" "It has arrived: the SMS gateway says so, or it was handed over at the desk."
* #opened "Opened" "The invited person has begun."
* #awaiting "Awaiting" "Somebody used it to act for the patient, and the practice has to confirm who they are."
* #redeemed "Redeemed" "The invited person has an account with it."
* #expired "Expired" "Its time is over."
* #revoked "Revoked" "The practice took it back."
