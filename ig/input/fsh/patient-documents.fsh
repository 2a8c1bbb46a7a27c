CodeSystem: PortalActivity
Id: portal-activity
Title: "Portal Activity"
Description: "What somebody did with a record, as the access log says it (`AuditEvent.subtype`)."
* insert Published
* ^caseSensitive = true
* #view "View" "It was shown on a page, or read by an app."
* #download "Download" "A file of it was taken: a document, or the record as a whole."
* #transmit "Transmit" "It was sent to somebody else."

CodeSystem: SuppliedDocument
Id: supplied-document
Title: "Supplied Document"
Description: "What kind of document somebody of the patient's side brings (`DocumentReference.type`)."
* insert Published
* ^caseSensitive = true
* #letter "Letter" "A letter or report of somebody else who cares for the patient."
* #results "Test results" "Results of tests that were made elsewhere."
* #insurance "Insurance" "An insurance card, or a letter about insurance."
* #legal "Legal paper" "A power of attorney, an advance directive, a court order."
* #picture "Picture" "A photo."
* #other "Something else" "Anything else."

Instance: upload
InstanceOf: OperationDefinition
Usage: #definition
Title: "Send a document"
Description: "A patient, or somebody who acts for them, gives the practice a document of their own: a DocumentReference with the `docStatus` `preliminary`, and a Task by which staff look at it. Sent again under its identifier it is there once."
* insert Operation(upload)
* name = "UploadDocument"
* affectsState = true
* insert OnType(DocumentReference)
* insert Parameter(in, identifier, 1, 1, Identifier, [["What the sender calls it: a system and a value, another one for each document."]])
* insert Parameter(in, attachment, 1, 1, Attachment, [["The file, with `contentType`, `data` and `title`. What it is, its content says; pictures are written anew, without place and time."]])
* insert Parameter(in, title, 1, 1, string, [["What it is called: at most 150 signs."]])
* insert Parameter(in, type, 0, 1, code, [["A code of `supplied-document`; without it `other`."]])
* insert Parameter(in, date, 0, 1, date, [["When it was written, if that is known."]])
* insert Parameter(in, confidential, 0, 1, boolean, [["For the patient alone: nobody who acts for them sees it."]])
* insert Parameter(out, document, 1, 1, Reference, [["The DocumentReference."]])
* insert Parameter(out, status, 1, 1, code, [["`preliminary`, `final`, or `entered-in-error` when it was not taken."]])

Instance: review-document
InstanceOf: OperationDefinition
Usage: #definition
Title: "Decide about a document"
Description: "Staff take in what somebody brought by `$upload`, with another kind, title or date where those are wrong, or do not take it. The Task ends, and the patient is told that there is an answer."
* insert Operation(review-document)
* name = "ReviewDocument"
* affectsState = true
* insert OnInstance(DocumentReference)
* insert Parameter(in, decision, 1, 1, code, [["`accept` or `refuse`."]])
* insert Parameter(in, type, 0, 1, CodeableConcept, [["What kind of document it is, if it is another one."]])
* insert Parameter(in, title, 0, 1, string, [["What it is called in the chart: at most 150 signs."]])
* insert Parameter(in, date, 0, 1, date, [["When it was written."]])
* insert Parameter(in, reason, 0, 1, string, [["Why it is not taken; needed to refuse. The patient reads it."]])
* insert Parameter(out, document, 1, 1, Reference, [["The DocumentReference."]])
* insert Parameter(out, status, 1, 1, code, [["`final` or `entered-in-error`."]])
