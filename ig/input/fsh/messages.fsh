// What a patient and the practice write to each other: one Communication is the thread, each message
// is another that is part of it.

Alias: $portal-conversation = https://fhir-portal.example/ig/CodeSystem/portal-conversation

CodeSystem: PortalConversation
Id: portal-conversation
Title: "Portal Conversation"
Description: "What a Communication of the portal is, in `Communication.category`. Notices that were sent by mail or SMS are neither."
* insert Published
* ^caseSensitive = true
* #thread "Thread" "What a conversation is about, who answers it and how it stands. It has no words of its own but its subject line."
* #message "Message" "One message of a thread."

CodeSystem: MessageTopic
Id: message-topic
Title: "Message Topic"
Description: "What a conversation can be about. A practice chooses some of these, says who answers and how soon, or has codes of its own."
* insert Published
* ^caseSensitive = true
* ^content = #example
* #medical "A medical question" "About the person's health or care."
* #medicine "A medicine" "About a medicine, a prescription or a refill."
* #results "A test result" "About a result."
* #appointment "An appointment" "About a visit that was or is to be."
* #billing "A bill" "About a bill or insurance."
* #other "Something else" "Anything else."

Extension: AnswerBy
Id: answer-by
Title: "Answer By"
Description: "When the practice wants to have answered what the patient wrote last. Absent while nobody waits for the practice."
Context: Communication
* insert Published
* value[x] only dateTime
* value[x] 1..1

Extension: LastMessage
Id: last-message
Title: "Last Message"
Description: "When the latest message of a thread was sent. Each message of a thread is later than the one before."
Context: Communication
* insert Published
* value[x] only instant
* value[x] 1..1

Extension: Thumbnail
Id: thumbnail
Title: "Thumbnail"
Description: "A small picture of an attached picture, as JPEG."
Context: Attachment
* insert Published
* value[x] only Attachment
* value[x] 1..1

Profile: MessageThread
Parent: Communication
Id: message-thread
Title: "Message Thread"
Description: """
A conversation of a patient, or of somebody who acts for them, with the practice. `in-progress`: the
practice is to answer. `on-hold`: the practice wrote last. `completed`: closed; it can be opened
again. `recipient` is who in the practice answers it: a person, or those whom its topic leads to.
"""
* insert Published
* extension contains AnswerBy named answerBy 0..1 MS and LastMessage named lastMessage 1..1 MS
* partOf 0..0
* status MS
* category 1..1 MS
* category = $portal-conversation#thread
* topic MS
* subject 1..1 MS
* subject only Reference(Patient)
* recipient MS
* sender 1..1 MS
* sender ^short = "Who began it; whoever acts for the patient is the RelatedPerson"
* sent 1..1 MS
* payload 1..1
* payload.content[x] only string
* payload ^short = "The subject line"

Profile: ThreadMessage
Parent: Communication
Id: thread-message
Title: "Thread Message"
Description: "One message of a thread. It carries the labels of its thread, and nobody changes its words."
* insert Published
* identifier MS
* identifier ^short = "What its sender calls it: sent again, it is the same message"
* partOf 1..1 MS
* partOf only Reference(Communication)
* inResponseTo only Reference(Communication)
* inResponseTo MS
* status MS
* category 1..1 MS
* category = $portal-conversation#message
* subject 1..1 MS
* subject only Reference(Patient)
* sender 1..1 MS
* sender ^short = "Who wrote it; whoever acts for the patient is the RelatedPerson"
* sent 1..1 MS
* received MS
* received ^short = "When it was first read by whom it is for, where the practice lets that be known"
* payload 1..6 MS
* payload.content[x] only string or Attachment

RuleSet: OnOneThread(code)
* insert Operation({code})
* affectsState = true
* insert OnInstance(Communication)

RuleSet: OnAllThreads(code)
* insert Operation({code})
* affectsState = true
* insert OnType(Communication)

RuleSet: Words
* insert Parameter(in, identifier, 1, 1, Identifier, [["What the sender calls this message, new for each: `system` and `value`. Sent again under the same one, it is stored once and answered the same."]])
* insert Parameter(in, text, 1, 1, string, [["The words, in plain text: at most 10000 signs."]])
* insert Parameter(in, attachment, 0, 5, Attachment, [["A file: `contentType`, `data`, `title`. Pictures (JPEG, PNG, GIF, WebP, HEIC), PDF and plain text, told by their content and not by their name; at most 5 MiB each and 10 MiB together. Pictures lose where and when they were taken."]])

RuleSet: ThreadState
* insert Parameter(out, thread, 1, 1, Reference, [["The thread."]])
* insert Parameter(out, status, 1, 1, code, [["`in-progress`: the practice is to answer. `on-hold`: the practice wrote last. `completed`: closed."]])
* insert Parameter(out, answer-by, 0, 1, dateTime, [["When the practice wants to have answered."]])

Instance: message-options
InstanceOf: OperationDefinition
Usage: #definition
Title: "What can be written"
Description: "To whom and about what somebody can write, how soon the practice answers, and what they have to read first."
* insert Operation(message-options)
* name = "MessageOptions"
* affectsState = false
* insert OnType(Communication)
* insert Parameter(in, patient, 0, 1, string, [["For staff: `Patient/<id>`, for whose care team to list. A patient's token knows whose record it is for."]])
* insert Parameter(out, warning, 1, 1, string, [["What a patient has to read and acknowledge before they begin a conversation: what not to use messages for."]])
* insert Parameter(out, warning-code, 1, 1, code, [["What `$send` is given to say that these words were read. Another when the words change."]])
* insert Parameter(out, staff-present, 1, 1, boolean, [["Whether somebody of the practice looked into the inbox in the last minutes: an answer may come at once. Otherwise it comes within the hours of the topic."]])
* insert Parts(out, topic, 0, *, [["What a conversation can be about."]])
* insert Part(out, code, 1, 1, code, [["The code to give to `$send`."]])
* insert Part(out, name, 1, 1, string, [["In words."]])
* insert Part(out, answer-hours, 1, 1, integer, [["Within how many hours of working days the practice wants to answer."]])
* insert Parts(out, person, 0, *, [["Who can be written to: the care team, as far as the caller may see it."]])
* insert Part(out, who, 1, 1, Reference, [["The person; the display is their name."]])
* insert Part(out, away, 0, 1, string, [["That they are out of the office, in the practice's words."]])
* insert Parameter(out, most-files, 1, 1, integer, [["How many files a message can have."]])
* insert Parameter(out, file-bytes, 1, 1, integer, [["How large each can be."]])
* insert Parameter(out, bytes-together, 1, 1, integer, [["How large they can be together."]])
* insert Parameter(out, file-type, 1, *, code, [["A media type that is taken."]])

Instance: send
InstanceOf: OperationDefinition
Usage: #definition
Title: "Begin a conversation"
Description: "A patient, somebody who acts for them, or staff write a first message. It makes the thread and the message, and tells the other side without saying what was written. Whoever acts for a patient writes as their RelatedPerson."
* insert OnAllThreads(send)
* name = "SendMessage"
* insert Parameter(in, patient, 0, 1, Reference, [["Whose record it is in. Needed by staff; a patient's token knows."]])
* insert Parameter(in, topic, 0, 1, code, [["A code of `$message-options`. Without `recipient` it is needed of patients: it says who answers."]])
* insert Parameter(in, recipient, 0, 1, Reference, [["A person of `$message-options`; not for staff, who write to the patient."]])
* insert Parameter(in, subject, 1, 1, string, [["The subject line: at most 150 signs."]])
* insert Words
* insert Parameter(in, warning, 0, 1, code, [["The `warning-code` of what was read; needed of all but staff."]])
* insert Parameter(in, draft, 0, 1, id, [["A draft that is used up by this."]])
* insert Parameter(in, confidential, 0, 1, boolean, [["Nobody who acts for the patient is to see it. Not for those who do."]])
* insert ThreadState
* insert Parameter(out, message, 1, 1, Reference, [["The message."]])
* insert Parameter(out, away, 0, 1, string, [["That the person written to is out of the office."]])

Instance: reply
InstanceOf: OperationDefinition
Usage: #definition
Title: "Answer in a conversation"
Description: "Writes another message in a thread that is not closed. It carries the thread's labels."
* insert OnOneThread(reply)
* name = "ReplyToMessage"
* insert Words
* insert Parameter(in, draft, 0, 1, id, [["A draft that is used up by this."]])
* insert Parameter(in, in-response-to, 0, 1, Reference, [["The message of this thread that it answers; without it the latest."]])
* insert ThreadState
* insert Parameter(out, message, 1, 1, Reference, [["The message."]])

Instance: mark-read
InstanceOf: OperationDefinition
Usage: #definition
Title: "Mark as read"
Description: "Notes that the caller has read a thread: each participant for themselves. Said again, or of an earlier message, it takes nothing back."
* insert OnOneThread(mark-read)
* name = "MarkMessagesRead"
* insert Parameter(in, upto, 0, 1, Reference, [["The last message that was read; without it the latest."]])
* insert Parameter(out, thread, 1, 1, Reference, [["The thread."]])
* insert Parameter(out, unread, 1, 1, integer, [["How many messages of others the caller has not read, 200 at most."]])

Instance: close
InstanceOf: OperationDefinition
Usage: #definition
Title: "Close a conversation"
Description: "Nothing is left to answer. Nobody writes in it until it is opened again."
* insert OnOneThread(close)
* name = "CloseThread"
* insert ThreadState

Instance: reopen
InstanceOf: OperationDefinition
Usage: #definition
Title: "Open a conversation again"
Description: "A closed thread goes on. Opened by the patient's side, the practice is to answer."
* insert OnOneThread(reopen)
* name = "ReopenThread"
* insert ThreadState

Instance: assign
InstanceOf: OperationDefinition
Usage: #definition
Title: "Say who answers"
Description: "Staff give a thread to one of them, to whom a topic leads, or back, and can say until when it is to be answered."
* insert OnOneThread(assign)
* name = "AssignThread"
* insert Parameter(in, to, 0, 1, Reference, [["The Practitioner of the practice's staff who is to answer. Without it and without `topic` the thread goes back to those whom its topic leads to."]])
* insert Parameter(in, topic, 0, 1, code, [["What it is about, if it is not what was chosen."]])
* insert Parameter(in, answer-by, 0, 1, dateTime, [["Until when to answer."]])
* insert ThreadState

Instance: thread
InstanceOf: OperationDefinition
Usage: #definition
Title: "A conversation"
Description: "A thread with its latest messages, and who has read how far. The patient's side sees how far the practice has read if the practice wants that known; nobody sees what the other people of the patient's side have read."
* insert Operation(thread)
* name = "ReadThread"
* affectsState = false
* insert OnInstance(Communication)
* insert Parameter(in, count, 0, 1, integer, [["How many messages at most: 1 to 200, the latest; without it 50."]])
* insert Parameter(out, thread, 1, 1, Communication, [["The thread."]])
* insert Parameter(out, message, 0, *, Communication, [["Its messages, the latest last."]])
* insert Parameter(out, more, 1, 1, boolean, [["Whether there are earlier ones."]])
* insert Parameter(out, patient, 0, 1, Reference, [["For staff: whose record it is in; the display is their name."]])
* insert Parameter(out, unread, 1, 1, integer, [["How many messages of others the caller has not read, 200 at most."]])
* insert Parts(out, read, 0, *, [["How far somebody has read."]])
* insert Part(out, who, 1, 1, Reference, [["Who."]])
* insert Part(out, upto, 1, 1, instant, [["When what they read last was sent."]])

Instance: threads
InstanceOf: OperationDefinition
Usage: #definition
Title: "Conversations"
Description: "The conversations that the caller may see: for staff those that wait longest for an answer first, for the patient's side the latest first. With `text` those in which it was written."
* insert Operation(threads)
* name = "ListThreads"
* affectsState = false
* insert OnType(Communication)
* insert Parameter(in, patient, 0, 1, string, [["For staff: `Patient/<id>`, whose conversations to list."]])
* insert Parameter(in, status, 0, 1, code, [["`in-progress`, `on-hold`, `completed`, or `all`. Without it those that wait for an answer for staff, and all for the patient's side."]])
* insert Parameter(in, assigned, 0, 1, code, [["For staff: `me`, or `nobody` for those that no single person is to answer."]])
* insert Parameter(in, topic, 0, 1, code, [["A code of `$message-options`."]])
* insert Parameter(in, text, 0, 1, string, [["Words of the subject line or of a message, in one piece; small and capital letters are the same. The latest 2000 messages are looked at."]])
* insert Parameter(in, count, 0, 1, integer, [["How many at most: 1 to 100; without it 50."]])
* insert Parameter(in, from, 0, 1, integer, [["How many to pass over."]])
* insert Parameter(out, total, 1, 1, integer, [["How many there are; 1000 at most are looked at."]])
* insert Parameter(out, unread, 0, 1, integer, [["How many messages of others the caller has not read in the conversations shown. Not for staff."]])
* insert Parts(out, thread, 0, *, [["A conversation."]])
* insert Part(out, what, 1, 1, Reference, [["The thread."]])
* insert Part(out, subject, 1, 1, string, [["Its subject line."]])
* insert Part(out, status, 1, 1, code, [["How it stands."]])
* insert Part(out, patient, 0, 1, Reference, [["For staff: whose record it is in; the display is their name."]])
* insert Part(out, topic, 0, 1, string, [["What it is about, in words."]])
* insert Part(out, assigned, 0, 1, Reference, [["Who is to answer."]])
* insert Part(out, answer-by, 0, 1, dateTime, [["Until when."]])
* insert Part(out, overdue, 0, 1, boolean, [["That this time is over."]])
* insert Part(out, confidential, 0, 1, boolean, [["That nobody who acts for the patient sees it."]])
* insert Part(out, last, 1, 1, instant, [["When the latest message was sent."]])
* insert Part(out, unread, 0, 1, integer, [["How many messages of others the caller has not read, 50 at most. Not for staff."]])

Instance: save-draft
InstanceOf: OperationDefinition
Usage: #definition
Title: "Keep a draft"
Description: "Keeps what somebody has begun to write. Nobody but its author sees it, in the record that it is for: it is no resource, and neither staff nor an EHR can read it. `$send` and `$reply` use it up."
* insert OnAllThreads(save-draft)
* name = "SaveDraft"
* insert Parameter(in, draft, 0, 1, id, [["The draft that this replaces; without it a new one."]])
* insert Parameter(in, patient, 0, 1, Reference, [["For staff: whose record it is for."]])
* insert Parameter(in, thread, 0, 1, Reference, [["The thread that it answers in."]])
* insert Parameter(in, topic, 0, 1, code, [["What it is about."]])
* insert Parameter(in, recipient, 0, 1, Reference, [["Whom it is to."]])
* insert Parameter(in, subject, 0, 1, string, [["The subject line."]])
* insert Parameter(in, text, 0, 1, string, [["The words."]])
* insert Parameter(out, draft, 1, 1, id, [["What it is called from now on."]])

Instance: drafts
InstanceOf: OperationDefinition
Usage: #definition
Title: "Drafts"
Description: "The caller's own drafts, the latest first."
* insert Operation(drafts)
* name = "ListDrafts"
* affectsState = false
* insert OnType(Communication)
* insert Parameter(out, draft, 0, *, Communication, [["A draft, as a Communication with the status `preparation` that is stored nowhere."]])

Instance: discard-draft
InstanceOf: OperationDefinition
Usage: #definition
Title: "Throw a draft away"
Description: "Removes one of the caller's own drafts."
* insert OnAllThreads(discard-draft)
* name = "DiscardDraft"
* insert Parameter(in, draft, 1, 1, id, [["The draft."]])
* insert Parameter(out, discarded, 1, 1, boolean, [["Whether there was one."]])

Instance: file-attachment
InstanceOf: OperationDefinition
Usage: #definition
Title: "File to the chart"
Description: "Staff file what came with a message to the chart: a DocumentReference with a copy of the content, with the labels of the message. Done again, it is the same document."
* insert OnOneThread(file-attachment)
* name = "FileAttachment"
* insert Parameter(in, number, 1, 1, positiveInt, [["Which file of the message: 1 is the first."]])
* insert Parameter(in, title, 0, 1, string, [["What it is called in the chart; without it as it was sent."]])
* insert Parameter(out, document, 1, 1, Reference, [["The DocumentReference."]])

Instance: request-refill
InstanceOf: OperationDefinition
Usage: #definition
Title: "Ask for a refill"
Description: "A patient, or somebody who acts for them, asks for more of a prescribed medicine. It makes a Task. Where it is early, or no refills are left, the answer says so and nothing is made until that is acknowledged. While one request is open there is no other."
* insert Operation(request-refill)
* name = "RequestRefill"
* affectsState = true
* insert OnInstance(MedicationRequest)
* insert Parameter(in, pharmacy, 0, 1, string, [["Which pharmacy, in words: at most 200 signs."]])
* insert Parameter(in, note, 0, 1, string, [["Anything to say: at most 500 signs."]])
* insert Parameter(in, acknowledged, 0, 1, boolean, [["The warnings were read, and it is asked for all the same."]])
* insert Parameter(out, task, 0, 1, Reference, [["The Task. Absent where warnings have to be acknowledged first."]])
* insert Parameter(out, status, 0, 1, code, [["`requested`, `approved`, `sent`, `refused`."]])
* insert Parts(out, warning, 0, *, [["What speaks against it."]])
* insert Part(out, code, 1, 1, code, [["`early` or `no-refills-left`."]])
* insert Part(out, text, 1, 1, string, [["In words."]])

Instance: refill-status
InstanceOf: OperationDefinition
Usage: #definition
Title: "Refills asked for"
Description: "What became of the refills that were asked for, the latest first."
* insert Operation(refill-status)
* name = "RefillStatus"
* affectsState = false
* insert OnInstance(MedicationRequest)
* insert Parts(out, request, 0, *, [["One that was asked for."]])
* insert Part(out, task, 1, 1, Reference, [["Its Task."]])
* insert Part(out, status, 1, 1, code, [["`requested`, `approved`, `sent`, `refused`."]])
* insert Part(out, asked, 1, 1, dateTime, [["When it was asked for."]])
* insert Part(out, reason, 0, 1, string, [["Why it was refused."]])

Instance: answer-refill
InstanceOf: OperationDefinition
Usage: #definition
Title: "Answer a refill request"
Description: "Staff say what becomes of a refill that was asked for; the patient is told that there is an answer."
* insert Operation(answer-refill)
* name = "AnswerRefill"
* affectsState = true
* insert OnInstance(Task)
* insert Parameter(in, status, 1, 1, code, [["`approved`, `sent` (to the pharmacy) or `refused`."]])
* insert Parameter(in, reason, 0, 1, string, [["Why; needed to refuse. The patient reads it."]])
* insert Parameter(out, task, 1, 1, Reference, [["The Task."]])
* insert Parameter(out, status, 1, 1, code, [["How it stands."]])

Instance: attachment
InstanceOf: OperationDefinition
Usage: #definition
Title: "A file of a message"
Description: "What came with a message, for whoever sees the message: staff who answer messages need not read records for it."
* insert Operation(attachment)
* name = "ReadAttachment"
* affectsState = false
* insert OnInstance(Communication)
* insert Parameter(in, number, 1, 1, integer, [["Which file: 1 is the first."]])
* insert Parameter(in, small, 0, 1, boolean, [["Its small picture, if it has one."]])
* insert Parameter(out, return, 1, 1, Binary, [["The content."]])

Instance: message-events
InstanceOf: OperationDefinition
Usage: #definition
Title: "What is new in conversations"
Description: "The conversations that changed since a mark. Asked for with `Accept: text/event-stream` it stays open and sends an event for each change, with what to read and nothing of what it says; it closes within a second after the caller's access has ended. Without, it is the same by asking again and again."
* insert Operation(message-events)
* name = "MessageEvents"
* affectsState = false
* insert OnType(Communication)
* insert Parameter(in, mark, 0, 1, string, [["The mark of the answer before; without it nothing has changed yet."]])
* insert Parameter(out, mark, 1, 1, string, [["What to give the next time."]])
* insert Parts(out, changed, 0, *, [["A conversation that changed. One can be named again that was named before, in the same version."]])
* insert Part(out, thread, 1, 1, Reference, [["The thread."]])
* insert Part(out, version, 1, 1, string, [["Its version."]])
