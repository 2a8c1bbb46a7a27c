// Appointments: found, held, booked, moved, cancelled, and "I am here". The shapes are those of
// IHE ITI Scheduling 1.0.1 (ITI-115 $find, ITI-116 $hold, ITI-117 $book).

RuleSet: OfAppointments
* insert Parameter(out, return, 1, 1, Bundle, [["A searchset of Appointments."]])

Instance: find
InstanceOf: OperationDefinition
Usage: #definition
Title: "Find times for an appointment"
Description: "The times that can be held and booked: free Slots of the practice whose practitioner, room or device nobody has then. Times that are held for somebody are not among them. Each is an Appointment with the status `proposed` that is stored nowhere and has no id; the first of its slots is what `$hold` goes by. Patients are told of times of services that they may book themselves."
* insert Operation(find)
* name = "AppointmentFind"
* affectsState = false
* insert OnType(Appointment)
* insert Parameter(in, start, 0, 1, dateTime, [["From when on. Without it, from now on."]])
* insert Parameter(in, end, 0, 1, dateTime, [["Until when: 31 days after the start at most. Without it, 14 days after the start."]])
* insert Parameter(in, visit-type, 0, *, string, [["A token, `code` or `system|code`: of Slots whose service type it is, or whose Schedule's. Any of several will do."]])
* insert Parameter(in, specialty, 0, *, string, [["The same for the specialty."]])
* insert Parameter(in, practitioner, 0, *, Reference, [["`Practitioner/[id]` or `PractitionerRole/[id]`; any of several will do. In a GET it is written as text."]])
* insert Parameter(in, location-reference, 0, *, Reference, [["`Location/[id]`, in the same way."]])
* insert Parameter(in, patient-reference, 0, 1, Reference, [["`Patient/[id]`: whom the times are for, who is named in the Appointments of the answer. Patients and proxies need not say it, and can say no other one."]])
* insert Parameter(in, _count, 0, 1, integer, [["How many on a page: 1 to 100, 20 without it."]])
* insert Parameter(in, _page, 0, 1, string, [["Where a page goes on: the `next` link has it, and nothing else."]])
* insert OfAppointments

Instance: hold
InstanceOf: OperationDefinition
Usage: #definition
Title: "Hold a time"
Description: "Stores an Appointment with the status `pending` for a time that is free, and takes the time of everybody it needs until it is booked or the hold ends. A time that is not there, is taken, or may not be booked by the caller is answered with `not-found`."
* insert Operation(hold)
* name = "AppointmentHold"
* affectsState = true
* insert OnType(Appointment)
* insert Parameter(in, appointment-resource, 1, 1, Appointment, [["An Appointment as `$find` returned it. Its first slot is the time; `comment` and the text of `reasonCode` are kept. Who calls for a practice names the Patient among the participants."]])
* insert OfAppointments

Instance: book
InstanceOf: OperationDefinition
Usage: #definition
Title: "Book, move or cancel an appointment"
Description: "Books an Appointment that is held (`pending` becomes `booked`); with `replaces` the earlier one is cancelled in the same transaction. With an Appointment whose status is `cancelled` in `appointment-resource`, that one is cancelled. Patients move and cancel until the time before the start that their practice allows; staff at any time."
* insert Operation(book)
* name = "AppointmentBook"
* affectsState = true
* insert OnType(Appointment)
* insert Parameter(in, appointment-reference, 0, 1, Reference, [["The Appointment that is held. Either this or the resource."]])
* insert Parameter(in, appointment-resource, 0, 1, Appointment, [["The Appointment that is held, or the one to be cancelled, with its id, its status and its `cancelationReason`."]])
* insert Parameter(in, replaces, 0, 1, Reference, [["The Appointment that this one takes the place of."]])
* insert Parameter(in, comment, 0, 1, string, [["What the patient wants to say: at most 1000 characters."]])
* insert OfAppointments

Instance: check-in
InstanceOf: OperationDefinition
Usage: #definition
Title: "I am here"
Description: "Says that the patient has arrived for an Appointment: its status becomes `arrived`. It is possible in the window around the start that the practice allows. With `undo` the status becomes what it was, as long as nobody at the practice has gone on with it."
* insert Operation(check-in)
* name = "AppointmentCheckIn"
* affectsState = true
* insert OnInstance(Appointment)
* insert Parameter(in, undo, 0, 1, boolean, [["Take it back."]])
* insert Parameter(out, status, 1, 1, code, [["The status of the Appointment now."]])
* insert Parameter(out, arrived, 0, 1, instant, [["When the patient said so."]])
* insert Parameter(out, ahead, 0, 1, integer, [["How many others with an earlier appointment wait for the same practitioner now."]])
* insert Parameter(out, forms-due, 1, 1, integer, [["How many Tasks the patient has still to do. 0 where the caller may not see them."]])
* insert Parameter(out, appointment, 1, 1, Appointment, [["The Appointment as it is now."]])
* insert Parameter(out, thread, 0, 1, Reference, [["The conversation with the front desk, a Communication; for who may read messages."]])
* insert Parameter(out, staff-present, 0, 1, boolean, [["Whether somebody of the practice looked into its inbox in the last minutes."]])

Instance: calendar
InstanceOf: OperationDefinition
Usage: #definition
Title: "An appointment for a calendar"
Description: "An Appointment as a file for calendars (`text/calendar`, RFC 5545). Its identifier stays the same when the appointment changes. What it is for is left out where it is sensitive, or the practice says so."
* insert Operation(calendar)
* name = "AppointmentCalendar"
* affectsState = false
* insert OnInstance(Appointment)
* insert Parameter(out, return, 1, 1, Binary, [["The file. It is not stored; asked for with `Accept: text/calendar` it is the body itself."]])
