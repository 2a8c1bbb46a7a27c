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
* insert Part(out, status, 1, 1, code, [["`active`, `expired`, `locked` (too many wrong passcodes) or `ended`."]])
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
* insert Part(out, tries-left, 1, 1, integer, [["How many wrong passcodes it still takes."]])
* insert Parts(out, view, 0, *, [["Each time that a passcode was right, of each link the latest first."]])
* insert Part(out, link, 1, 1, string, [["The link."]])
* insert Part(out, at, 1, 1, instant, [["When."]])
* insert Part(out, recipient, 1, 1, string, [["What whoever used it called themselves."]])
* insert Part(out, way, 1, 1, code, [["`app` (a manifest was asked for) or `page`."]])

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
