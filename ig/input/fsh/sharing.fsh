// Sharing a record with somebody outside.

Instance: share-link
InstanceOf: OperationDefinition
Usage: #definition
Title: "Share a record by a link"
Description: "Makes a SMART Health Link that shows part of a record to somebody outside: the summary, and documents that were chosen, within sections and days. It holds nothing of the record: at each use it shows what its maker may see then. Link and passcode are told once, in this answer."
* insert Operation(share-link)
* name = "ShareLink"
* affectsState = true
* insert OnInstance(Patient)
* insert Parameter(in, section, 0, *, code, [["Portal sections of which something is shown; all that the caller sees where none is given."]])
* insert Parameter(in, start, 0, 1, date, [["The first day of the time of care that is shown."]])
* insert Parameter(in, end, 0, 1, date, [["Its last day."]])
* insert Parameter(in, summary, 0, 1, boolean, [["Whether the summary is shown; it is unless this is `false`."]])
* insert Parameter(in, document, 0, *, Reference, [["DocumentReferences that are shown whole, 20 at most."]])
* insert Parameter(in, expires, 0, 1, dateTime, [["Until when; 30 days where it is missing, and a year at most."]])
* insert Parameter(in, label, 0, 1, string, [["What the link is called, for who makes it and who gets it: 80 signs at most."]])
* insert Parameter(out, id, 1, 1, string, [["What its maker calls the link by. It opens nothing."]])
* insert Parameter(out, shlink, 1, 1, string, [["The link for an app that reads SMART Health Links, with the key of its files."]])
* insert Parameter(out, link, 1, 1, url, [["The same to open in a browser; apps find the link in it."]])
* insert Parameter(out, passcode, 1, 1, string, [["What is asked for at each use; to be told in another way than the link."]])
* insert Parameter(out, expires, 1, 1, instant, [["Until when it works."]])

Instance: share-links
InstanceOf: OperationDefinition
Usage: #definition
Title: "Links that share a record"
Description: "The links that show a record, ended ones too, and who used them: all of them to the person whose record it is, to others those that they made."
* insert Operation(share-links)
* name = "ShareLinks"
* affectsState = false
* insert OnInstance(Patient)
* insert Parts(out, link, 0, *, [["Each link, the latest first."]])
* insert Part(out, id, 1, 1, string, [["What it is called by in `$end-share`."]])
* insert Part(out, status, 1, 1, code, [["`active`, `expired` or `ended`."]])
* insert Part(out, label, 0, 1, string, [["What its maker calls it."]])
* insert Part(out, by, 1, 1, Reference, [["Who made it."]])
* insert Part(out, made, 1, 1, instant, [["When."]])
* insert Part(out, expires, 1, 1, instant, [["Until when it works at most."]])
* insert Part(out, ended, 0, 1, instant, [["When it was ended."]])
* insert Part(out, section, 0, *, code, [["The sections of which it shows something."]])
* insert Part(out, start, 0, 1, date, [["The first day of what it shows."]])
* insert Part(out, end, 0, 1, date, [["The last."]])
* insert Part(out, summary, 1, 1, boolean, [["Whether it shows the summary."]])
* insert Part(out, document, 0, *, Reference, [["The documents that were chosen."]])
* insert Part(out, views, 1, 1, integer, [["How many times the passcode was right."]])
* insert Part(out, wrong-tries, 1, 1, integer, [["How many wrong passcodes were tried on it."]])
* insert Parts(out, view, 0, *, [["That a passcode was right: of each link once for each day of the practice, way and recipient, the latest first."]])
* insert Part(out, link, 1, 1, string, [["The link."]])
* insert Part(out, at, 1, 1, instant, [["When, the last time."]])
* insert Part(out, recipient, 0, 1, string, [["What whoever used it called themselves. Missing: all who came after 500 had been listed, with the last of them."]])
* insert Part(out, way, 1, 1, code, [["`app` (a manifest was asked for) or `page`."]])
* insert Part(out, times, 1, 1, integer, [["How many times."]])

Instance: end-share
InstanceOf: OperationDefinition
Usage: #definition
Title: "End a link"
Description: "Ends a link at once, wherever it was opened."
* insert Operation(end-share)
* name = "EndShare"
* affectsState = true
* insert OnInstance(Patient)
* insert Parameter(in, id, 1, 1, string, [["The link, as `$share-links` calls it."]])
* insert Parameter(out, id, 1, 1, string, [["The link."]])
* insert Parameter(out, ended, 1, 1, instant, [["When it ended."]])

Instance: transmit
InstanceOf: OperationDefinition
Usage: #definition
Title: "Send a record to somebody outside"
Description: "Sends the summary of a record (on a Patient), or a document of it, to somebody outside. It goes out a moment later, with what the sender may see then; a Task follows it. By default what is sent is a link, whose passcode the sender tells; plain mail is sent only to who has accepted the warning."
* insert Operation(transmit)
* name = "Transmit"
* affectsState = true
* resource[0] = #Patient
* resource[+] = #DocumentReference
* system = false
* type = false
* instance = true
* insert Parameter(in, channel, 1, 1, code, [["`link`: a mail with a link. `email`: a plain mail with files. `direct`: a Direct message with files. `endpoint`: the FHIR endpoint of an Organization."]])
* insert Parameter(in, to, 0, 1, string, [["The mail address or Direct address it goes to."]])
* insert Parameter(in, recipient, 0, 1, Reference, [["In place of an address: a Practitioner, PractitionerRole or Organization of the practice's directory, as `$transmit-options` lists them."]])
* insert Parameter(in, warning, 0, 1, code, [["With `email`: the version of the warning that the sender has read and accepted."]])
* insert Parameter(in, section, 0, *, code, [["Of a summary: portal sections of which something is sent; all that the caller sees where none is given."]])
* insert Parameter(in, start, 0, 1, date, [["Of a summary: the first day of the time of care."]])
* insert Parameter(in, end, 0, 1, date, [["Of a summary: its last day."]])
* insert Parameter(in, expires, 0, 1, dateTime, [["With `link`: until when the link works."]])
* insert Parameter(in, idempotency-key, 0, 1, string, [["What the caller calls this sending by, so that sending it twice sends once: 8 to 64 of A-Z a-z 0-9 . _ -."]])
* insert Parameter(out, task, 1, 1, Reference, [["The Task that follows it."]])
* insert Parameter(out, status, 1, 1, code, [["`requested`, `in-progress`, `completed`, `failed` or `cancelled`."]])
* insert Parameter(out, passcode, 0, 1, string, [["With `link`: the passcode, told once. It is not in the mail."]])

Instance: transmit-options
InstanceOf: OperationDefinition
Usage: #definition
Title: "How and to whom a record can be sent"
Description: "The channels that are set up, the warning before plain mail, and those of the practice's directory who can be reached."
* insert Operation(transmit-options)
* name = "TransmitOptions"
* affectsState = false
* insert OnInstance(Patient)
* insert Parameter(in, name, 0, 1, string, [["The beginning of a name."]])
* insert Parameter(out, channel, 1, *, code, [["Each channel that can be used."]])
* insert Parameter(out, warning, 1, 1, string, [["What to read before plain mail is sent."]])
* insert Parameter(out, warning-version, 1, 1, code, [["Which warning that is."]])
* insert Parts(out, recipient, 0, *, [["Somebody of the directory who can be reached by one of them."]])
* insert Part(out, who, 1, 1, Reference, [["A Practitioner or an Organization, with the name."]])
* insert Part(out, reached-by, 1, *, code, [["The channels by which."]])

Instance: transmissions
InstanceOf: OperationDefinition
Usage: #definition
Title: "What was sent to somebody outside"
Description: "What was sent of a record by `$transmit`, and how it went: all of it to the person whose record it is, to others what they sent."
* insert Operation(transmissions)
* name = "Transmissions"
* affectsState = false
* insert OnInstance(Patient)
* insert Parts(out, transmission, 0, *, [["Each sending, the latest first."]])
* insert Part(out, task, 1, 1, Reference, [["Its Task."]])
* insert Part(out, status, 1, 1, code, [["As `$transmit` says it."]])
* insert Part(out, channel, 1, 1, code, [["How it went."]])
* insert Part(out, to, 1, 1, string, [["The address, or the name in the directory."]])
* insert Part(out, what, 1, 1, Reference, [["The Patient, for the summary, or the DocumentReference."]])
* insert Part(out, by, 1, 1, Reference, [["Who sent it."]])
* insert Part(out, at, 1, 1, instant, [["When it was asked for."]])
* insert Part(out, changed, 1, 1, instant, [["When its status changed last."]])
* insert Part(out, reason, 0, 1, string, [["Why it was not sent."]])
