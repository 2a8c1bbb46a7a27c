Instance: portal-dashboard
InstanceOf: OperationDefinition
Usage: #definition
Title: "What a portal shows first"
Description: "Next and last visit, what is due on bills, and what is new, in one call. Each part is what a search of the caller's would find: what the token or the grant does not let them see is left out and does not count."
* insert Operation(portal-dashboard)
* name = "PortalDashboard"
* affectsState = false
* insert OnInstance(Patient)
* insert Parts(out, next-appointment, 0, 1, [["The next appointment that is not over; absent where there is none, or none may be seen."]])
* insert Part(out, appointment, 1, 1, Reference, [["The Appointment."]])
* insert Part(out, status, 1, 1, code, [["Its status."]])
* insert Part(out, start, 0, 1, instant, [["When it begins."]])
* insert Part(out, purpose, 0, 1, string, [["What for, in words; left out where the practice keeps that off screens, or a label does."]])
* insert Part(out, with, 0, 1, string, [["Whom it is with, as far as the Appointment says so."]])
* insert Part(out, check-in, 1, 1, boolean, [["Whether the caller can say now that the patient is here (`$check-in`)."]])
* insert Parts(out, last-visit, 0, 1, [["The latest Encounter that is finished."]])
* insert Part(out, encounter, 1, 1, Reference, [["The Encounter."]])
* insert Part(out, start, 0, 1, dateTime, [["When it began."]])
* insert Part(out, end, 0, 1, dateTime, [["When it ended."]])
* insert Parts(out, balance, 0, 1, [["The open bills. Absent where bills may not be seen; a part with no bills says that nothing is due."]])
* insert Part(out, bills, 1, 1, integer, [["How many bills are open."]])
* insert Part(out, due, 0, *, Money, [["What is due on them, one sum for each currency."]])
* insert Part(out, under-way, 0, *, Money, [["What is being paid."]])
* insert Part(out, not-reckoned, 1, 1, integer, [["How many of them cannot be reckoned up and are not in the sums."]])
* insert Part(out, more, 1, 1, boolean, [["Whether there are more bills than were looked at."]])
* insert Parts(out, new-results, 0, 1, [["The reports of the last 30 days: issued, or released to the patient."]])
* insert Part(out, count, 1, 1, integer, [["How many."]])
* insert Part(out, more, 1, 1, boolean, [["Whether there are more than were counted."]])
* insert Part(out, since, 1, 1, instant, [["Since when they were issued or released."]])
* insert Part(out, latest, 0, 1, Reference, [["The latest DiagnosticReport."]])
* insert Part(out, report, 0, *, Reference, [["Those that were counted: the latest issued first, then what was issued earlier and released since."]])
* insert Parts(out, messages, 0, 1, [["What the caller has not read of what others wrote. Not for staff."]])
* insert Part(out, unread, 1, 1, integer, [["How many messages; of the latest 200."]])
* insert Part(out, more, 1, 1, boolean, [["Whether there are earlier ones, which were not looked at."]])
* insert Parts(out, forms-due, 0, 1, [["The forms that are asked for and not handed in."]])
* insert Part(out, count, 1, 1, integer, [["How many."]])
* insert Part(out, more, 1, 1, boolean, [["Whether there are more than were counted."]])
* insert Part(out, due, 0, 1, date, [["The first day by which one is wanted."]])
