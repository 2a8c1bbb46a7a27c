"""The words of every message that the server brings.

They name the practice and say what to do next. No person is named, nothing is said about
anybody's health, and nothing in them is secret but the one code or link that a message is made to
carry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from fhir_portal.accounts.preferences import ALWAYS, Topic

Secret = Literal["code", "link"]


class UnknownTemplate(Exception):
    """There is no message of this name."""


@dataclass(frozen=True, slots=True)
class Words:
    """A message as a pattern. ``needs`` is the secret that it carries, and nothing else may.

    ``values`` are what else it is filled with when it is sent; the first one cannot be left out.
    ``told`` says that its practice speaks in it of its own records, so that these tell of it
    (`is_in_record`); what is not about security does always.
    """

    subject: str
    body: str
    sms: str
    needs: Secret | None = None
    topic: Topic = "security"
    values: tuple[str, ...] = ()
    told: bool = False


_NOT_YOU: Final = (
    "If this was you, there is nothing to do. If it was not, sign in at "
    "{portal}/go/security, change your password there, and call the practice."
)


def _security(subject: str, what: str, sms: str, *, told: bool = False) -> Words:
    return Words(
        told=told,
        subject=f"{subject} - {{practice}}",
        body=f"Hello,\n\n{what}\n\n{_NOT_YOU}",
        sms=f"{{practice}}: {sms} Not you? Sign in to the portal or call us.",
    )


def _app(subject: str, what: str, sms: str) -> Words:
    return Words(
        told=True,
        subject=f"{subject} - {{practice}}",
        body=(
            f"Hello,\n\n{what}\n\nTo see which app it is and what it may read, sign in at "
            "{portal}/go/apps. If you did not expect this, end its access there and call the "
            "practice."
        ),
        sms=f"{{practice}}: {sms} Sign in to the portal and open Apps.",
    )


BUILT_IN: Final[Mapping[str, Words]] = MappingProxyType(
    {
        "security-password-changed": _security(
            "Your password was changed",
            "The password of your patient portal account was changed.",
            "your portal password was changed.",
        ),
        "security-totp-added": _security(
            "An authenticator app was added",
            "An authenticator app was added to your patient portal account. From now on you are "
            "asked for its code when you sign in.",
            "an authenticator app was added to your portal account.",
        ),
        "security-totp-removed": _security(
            "The authenticator app was removed",
            "The authenticator app was removed from your patient portal account. You are no longer "
            "asked for its code.",
            "the authenticator app was removed from your portal account.",
        ),
        "security-recovery-codes-made": _security(
            "New recovery codes were made",
            "New recovery codes were made for your patient portal account. The ones you had before "
            "are no longer good.",
            "new recovery codes were made for your portal account.",
        ),
        "security-recovery-code-used": _security(
            "A recovery code was used",
            "Somebody signed in to your patient portal account with one of your recovery codes. "
            "That code is used up; the others are still good.",
            "a recovery code was used to sign in to your portal account.",
        ),
        "security-passkey-added": _security(
            "A passkey was added",
            "A passkey was added to your patient portal account. It can be used to sign in.",
            "a passkey was added to your portal account.",
        ),
        "security-passkey-removed": _security(
            "A passkey was removed",
            "A passkey was removed from your patient portal account. It can no longer be used.",
            "a passkey was removed from your portal account.",
        ),
        "security-codes-guessed": _security(
            "Wrong codes were entered",
            "Several wrong codes were entered for your patient portal account today. Whoever did "
            "that knows your password.",
            "several wrong codes were entered for your portal account.",
        ),
        "app-ended": _app(
            "An app can no longer use a record",
            "The access of an app to a record was ended. The app was told, and can read nothing "
            "more.",
            "an app's access to a record was ended.",
        ),
        "app-ended-by-record": _app(
            "An app you had connected was disconnected",
            "The person whose record it is ended the access of an app that you had connected.",
            "an app that you had connected was disconnected.",
        ),
        "app-ended-by-practice": _app(
            "An app can no longer use a record",
            "The practice ended the access of an app to a record.",
            "the practice ended an app's access to a record.",
        ),
        "app-narrowed": _app(
            "An app may use less of a record",
            "An app may use less of a record from now on.",
            "an app may use less of a record from now on.",
        ),
        "app-made-by-proxy": _app(
            "An app was connected to your record",
            "Somebody who may use your record has connected an app to it.",
            "somebody who may use your record connected an app to it.",
        ),
        "one-time-code": Words(
            # Not in the subject: that is shown on locked screens.
            subject="Your code for the patient portal - {practice}",
            body=(
                "Hello,\n\nYour code for the patient portal is:\n\n    {code}\n\nType it on the "
                "page that asked for it. It is good for ten minutes, and once. Nobody who calls or "
                "writes to you needs it: do not tell it to anybody.\n\nIf you did not ask for a "
                "code, there is nothing to do."
            ),
            sms="{practice}: {code} is your portal code, good for 10 minutes. "
            "Do not tell it to anybody.",
            needs="code",
        ),
        "invitation-link": Words(
            subject="Your invitation to the patient portal - {practice}",
            body=(
                "Hello,\n\n{practice} invites you to its patient portal. To begin, open this "
                "address, or copy it into your browser:\n\n{link}\n\nYou will be asked for "
                "something else that only you have, such as the security code the practice gave "
                "you or sends you another way. If you have an account here already, you can sign "
                "in with it there.\n\nThe address is good for a limited time. If it is over, or "
                "if you expected no invitation, call the practice."
            ),
            sms="{practice} invites you to its patient portal: {link}",
            needs="link",
            told=True,
        ),
        "invitation-code": Words(
            subject="Your security code for the patient portal - {practice}",
            body=(
                "Hello,\n\n{practice} has invited you to its patient portal. This is the security "
                "code that goes with the invitation:\n\n    {code}\n\nThe invitation itself comes "
                "another way. Type the code on the page that it leads to. It is good as long as "
                "the invitation is. Nobody who calls or writes to you needs it: do not tell it to "
                "anybody.\n\nIf you expected no invitation, call the practice."
            ),
            sms="{practice}: {code} is the security code that goes with your invitation. "
            "Do not tell it to anybody.",
            needs="code",
            told=True,
        ),
        "invitation-resent": Words(
            subject="Your new invitation to the patient portal - {practice}",
            body=(
                "Hello,\n\nHere is your new invitation to the patient portal of {practice}. The "
                "one before is no longer good. To begin, open this address, or copy it into your "
                "browser:\n\n{link}\n\nYou will be asked for something else that only you have, "
                "such as the security code the practice gave you or sends you another way.\n\n"
                "The address is good for a limited time. If it is over, call the practice."
            ),
            sms="{practice}: your new invitation to the patient portal: {link}",
            needs="link",
            told=True,
        ),
        "appointment-reminder": Words(
            # Not when, where or with whom: whoever reads the mail need not know.
            subject="You have an appointment - {practice}",
            body=(
                "Hello,\n\nThis is a reminder of an appointment at {practice}. When and where it "
                "is, and what to do before, you find at {portal}/go/appointments after you sign "
                "in.\n\nIf you cannot come, cancel it there or call the practice, so that "
                "somebody else can have the time."
            ),
            sms="{practice}: you have an appointment soon. See when at {portal}/go/appointments",
            topic="reminders",
        ),
        "appointment-freed": Words(
            subject="A time has become free - {practice}",
            body=(
                "Hello,\n\nYou are waiting for an appointment at {practice}, and a time has become "
                "free. It is held for you for a short while. To take it, sign in at "
                "{portal}/go/appointments.\n\nIf you do not take it, somebody else is asked."
            ),
            sms="{practice}: a time has become free. Take it soon at {portal}/go/appointments",
            topic="reminders",
        ),
        "recovery-help": Words(
            subject="Getting back into your account - {practice}",
            body=(
                "Hello,\n\nThe practice has begun to help you get back into your patient portal "
                "account. Open this address, or copy it into your browser, and follow the "
                "steps there:\n\n{link}\n\nNobody at the practice sees or chooses your password. "
                "If you did not ask for help, do not open the address, and call the practice."
            ),
            sms="{practice}: to get back into your portal account, open {link} "
            "Did not ask? Call us.",
            needs="link",
        ),
        "security-contact-added": _security(
            "A way to reach you was added",
            "Another mail address or telephone number was added to your patient portal account. "
            "It cannot be used to recover the account before 24 hours have passed.",
            "another address or number was added to your portal account.",
        ),
        "security-contact-removed": _security(
            "A way to reach you was removed",
            "A mail address or telephone number was removed from your patient portal account. "
            "Nothing will be sent there any more.",
            "an address or number was removed from your portal account.",
        ),
        "security-account-recovered": _security(
            "Your account was recovered",
            "Somebody got back into your patient portal account with codes that were sent to you, "
            "or with the help of the practice, and chose how to sign in from now on.",
            "your portal account was recovered.",
        ),
        "security-password-removed": _security(
            "Your password was removed",
            "The password of your patient portal account was removed. It is no longer good.",
            "the password of your portal account was removed.",
        ),
        "security-security-questions-changed": _security(
            "Your security questions were changed",
            "The security questions of your patient portal account were changed.",
            "the security questions of your portal account were changed.",
        ),
        "security-recovery-started": _security(
            "The practice helps with your account",
            "The practice has begun to help somebody back into your patient portal account.",
            "the practice has begun to help somebody back into your portal account.",
            told=True,
        ),
        "security-recovery-cancelled": _security(
            "Help with your account was ended",
            "What the practice had begun, to help somebody back into your patient portal account, "
            "was ended. The codes that were handed over for it are no longer good.",
            "help with getting back into your portal account was ended.",
        ),
        "message-new": Words(
            subject="A new message for you - {practice}",
            body=(
                "Hello,\n\nThere is a new message for you in the patient portal of {practice}. "
                "Sign in at {portal}/go/messages to read it."
            ),
            sms="{practice}: there is a new message for you in the portal.",
            topic="messages",
        ),
        "bill-answered": Words(
            subject="An answer of the practice - {practice}",
            body=(
                "Hello,\n\nThere is an answer to something that was said in the patient portal of "
                "{practice}. Sign in at {portal} to read it."
            ),
            sms="{practice}: there is an answer for you in the portal.",
            topic="messages",
        ),
        "bill-due": Words(
            subject="A reminder of the practice - {practice}",
            body=(
                "Hello,\n\nSomething that you agreed on with {practice} is due in some days. Sign "
                "in at {portal} to see it. Nothing is charged by itself."
            ),
            sms="{practice}: a reminder waits for you in the portal.",
            topic="reminders",
        ),
        "refill-answered": Words(
            subject="An answer to what you asked for - {practice}",
            body=(
                "Hello,\n\nThere is an answer to something that was asked for in the patient "
                "portal of {practice}. Sign in at {portal} to read it."
            ),
            sms="{practice}: there is an answer for you in the portal.",
            topic="messages",
        ),
        "document-reviewed": Words(
            subject="An answer to what you sent - {practice}",
            body=(
                "Hello,\n\nThere is an answer to something that was sent by the patient portal of "
                "{practice}. Sign in at {portal} to read it."
            ),
            sms="{practice}: there is an answer for you in the portal.",
            topic="documents",
        ),
        "security-contact-on-file": _security(
            "How we reach you was changed",
            "How {practice} reaches you was changed: a mail address or telephone number was taken "
            "off your record.",
            "a contact was taken off your record.",
            told=True,
        ),
        "coverage-ends": Words(
            subject="Something on file ends soon - {practice}",
            body=(
                "Hello,\n\nSomething that {practice} has on file for you ends soon. Sign in at "
                "{portal} to see it and to bring it up to date."
            ),
            sms="{practice}: something on file ends soon. Sign in to the portal to see it.",
            topic="messages",
        ),
        "proposal-answered": Words(
            subject="An answer to a change that you asked for - {practice}",
            body=(
                "Hello,\n\nThere is an answer to a change that was asked for in the patient portal "
                "of {practice}. Sign in at {portal} to read it."
            ),
            sms="{practice}: there is an answer for you in the portal.",
            topic="messages",
        ),
        "message-for-staff": Words(
            subject="A patient has written - {practice}",
            body=(
                "Hello,\n\nThere is a new message that you are to answer. Sign in at "
                "{portal}/staff and open the inbox."
            ),
            sms="{practice}: there is a new message that you are to answer.",
            topic="messages",
        ),
        "form-asked": Words(
            subject="A form to fill in - {practice}",
            body=(
                "Hello,\n\n{practice} asks for a form to be filled in. Sign in at {portal} to see "
                "it. You can save it and go on later."
            ),
            sms="{practice}: there is a form to fill in. Sign in to the portal to see it.",
            topic="reminders",
        ),
        "form-reminder": Words(
            subject="A form is waiting for you - {practice}",
            body=(
                "Hello,\n\nA form of {practice} is still to be filled in, and wanted soon. Sign in "
                "at {portal} to see it."
            ),
            sms="{practice}: a form is still to be filled in. Sign in to the portal to see it.",
            topic="reminders",
        ),
        "username-reminder": Words(
            subject="Your user name for the patient portal - {practice}",
            body=(
                "Hello,\n\nYou asked for the user name of your patient portal account. It is:\n\n"
                "    {username}\n\nIt is good at {practices}. You can sign in with it at {portal}."
                "\n\nIf you did not ask for it, there is nothing to do."
            ),
            sms="{practice}: your user name for the patient portal is {username}",
            values=("username", "practices"),
        ),
        "account-created": _security(
            "Your patient portal account is ready",
            "Your patient portal account was made. You can sign in at {portal} from now on.",
            "your portal account was made.",
            told=True,
        ),
        "account-exists": Words(
            subject="You have an account already - {practice}",
            body=(
                "Hello,\n\nSomebody, perhaps you, wanted to create a patient portal account with "
                "this mail address. You have one already.\n\nSign in at {portal}. If you have "
                "forgotten how, choose “Forgotten your user name or password?” there. If it "
                "was not you, there is nothing to do."
            ),
            sms="{practice}: you have a portal account already. Sign in there.",
        ),
        "record-added": _security(
            "A record was added to an account",
            "A record of {practice} was added to a patient portal account.",
            "a record was added to a portal account.",
            told=True,
        ),
        "record-waits": Words(
            subject="The practice makes sure of you - {practice}",
            body=(
                "Hello,\n\nYou have used an invitation of {practice} to act for somebody else. "
                "The record opens when the practice has made sure that it is you: sign in at "
                "{portal}/activate/done, and show or read the number there to somebody at the "
                "practice, at the desk or on the telephone.\n\nIf this was not you, call the "
                "practice."
            ),
            sms="{practice}: we still have to make sure of you. Sign in and tell us the number "
            "shown there.",
        ),
        "security-proxy-added": Words(
            subject="Somebody may use a record from now on - {practice}",
            body=(
                "Hello,\n\nFrom now on somebody new may use your record at {practice}, or one "
                "that you look after there, by the patient portal.\n\nIf you expected this, "
                "there is nothing to do. If you did not, or do not want it, call the practice: "
                "it tells you who it is, and ends it."
            ),
            sms="{practice}: somebody new may use your record, or one you look after, by the "
            "portal. Not wanted? Call us.",
        ),
        "security-disabled-at-practice": Words(
            subject="Your access to your records was switched off - {practice}",
            body=(
                "Hello,\n\n{practice} has switched off access to its records with your patient "
                "portal account, and apps that were connected there can read nothing more. You "
                "still have a right to your own record: ask the practice for it.\n\nIf you did not "
                "expect this, call the practice: it can switch the access on again."
            ),
            sms="{practice}: portal access to our records was switched off. Not expected? Call us.",
            told=True,
        ),
        "security-enabled-at-practice": Words(
            subject="Your access to your records is on again - {practice}",
            body=(
                "Hello,\n\n{practice} has switched on access to its records with your patient "
                "portal account again. You can sign in at {portal}. Apps have to be connected "
                "anew.\n\nIf you did not expect this, call the practice."
            ),
            sms="{practice}: portal access to our records is on again. Not expected? Call us.",
            told=True,
        ),
        "security-sessions-ended": _security(
            "You were signed out",
            "The practice has signed you out of the patient portal, on one browser or on all.",
            "you were signed out of the portal.",
            told=True,
        ),
        "security-record-merged": _security(
            "Two records were joined",
            "The practice found that two of its records are about the same person, and joined "
            "them. Apps that were connected to one of them have to be connected anew.",
            "two records were joined. Apps have to be connected anew.",
            told=True,
        ),
        "security-merge-undone": _security(
            "Two records were taken apart again",
            "The practice had joined two of its records and has taken them apart again.",
            "two records that were joined were taken apart again.",
            told=True,
        ),
        "security-renewal-required": Words(
            subject="Please choose a new password - {practice}",
            body=(
                "Hello,\n\nThe practice asks you to renew how you sign in to your patient portal "
                "account. The next time you sign in at {portal}, you will be asked to choose a new "
                "password. Nobody will ask you for it by mail or telephone.\n\nIf you have "
                "questions, call the practice."
            ),
            sms="{practice}: at your next sign-in to the portal you will choose a new password.",
            told=True,
        ),
        "security-closed-at-practice": Words(
            subject="Your access to our records has ended - {practice}",
            body=(
                "Hello,\n\n{practice} has ended your access to its records by the patient portal. "
                "Apps that were connected there can read nothing more, and an invitation that you "
                "have not used is void. What you have at other practices stays. You still have a "
                "right to your own record: ask the practice for it.\n\nIf you did not expect this, "
                "call the practice: it can invite you again."
            ),
            sms="{practice}: your portal access to our records has ended. Not expected? Call us.",
        ),
        "security-acting-ended": Words(
            subject="You no longer act for somebody - {practice}",
            body=(
                "Hello,\n\n{practice} has ended your access to the record of somebody you acted "
                "for. Apps that you had connected to that record can read nothing more. Your other "
                "records stay as they are.\n\nIf you did not expect this, call the practice."
            ),
            sms="{practice}: your access to somebody else's record has ended. Not expected? "
            "Call us.",
            told=True,
        ),
        "proxy-ended": Words(
            subject="Somebody can no longer see your record - {practice}",
            body=(
                "Hello,\n\n{practice} has ended the access of somebody who could use your record. "
                "They can see nothing more of it, and neither can apps that they had connected."
                "\n\nTo see who may use your record, sign in at {portal}. If you did not expect "
                "this, call the practice."
            ),
            sms="{practice}: somebody's access to your record has ended. Not expected? Call us.",
            told=True,
        ),
        "record-shared-by-proxy": Words(
            subject="Part of your record was shared - {practice}",
            body=(
                "Hello,\n\nSomebody who may use your record has shared part of it with somebody "
                "else, by a link or by sending it.\n\nTo see what was shared, and with whom, "
                "sign in at {portal} and open Sharing. You can end a link there. If you did not "
                "expect this, call the practice."
            ),
            sms="{practice}: somebody who may use your record shared part of it. Sign in to the "
            "portal and open Sharing.",
            told=True,
        ),
        "terms-changed": Words(
            subject="The terms of use have changed - {practice}",
            body=(
                "Hello,\n\nThe terms of use of the patient portal have changed. The next time you "
                "sign in at {portal}, you can read them and are asked to accept them."
            ),
            sms="{practice}: the terms of the patient portal changed. "
            "You will see them at your next sign-in.",
        ),
        "share-link": Words(
            subject="Somebody shared part of a health record with you - {practice}",
            body=(
                "Hello,\n\nsomebody who uses our patient portal shares part of a health record "
                "with you. Open it here:\n\n{link}\n\nYou are asked for a passcode, which they "
                "tell you themselves. If you do not know who it could be, delete this message: "
                "without the passcode nobody sees anything."
            ),
            sms="{practice}: part of a health record is shared with you: {link} "
            "Ask whoever sent it for the passcode.",
            needs="link",
        ),
        "record-attached": Words(
            subject="Part of a health record is attached - {practice}",
            body=(
                "Hello,\n\nsomebody who uses our patient portal asked us to send you what is "
                "attached: part of a health record. It is not encrypted, which they know and "
                "chose. If it is not for you, delete it and call us."
            ),
            sms="{practice}: part of a health record was sent to you by mail.",
        ),
        "record-direct": Words(
            subject="Part of a health record is attached - {practice}",
            body=(
                "Hello,\n\nsomebody who uses our patient portal asked us to send you what is "
                "attached: part of a health record. If it is not for you, delete it and call us."
            ),
            sms="{practice}: part of a health record was sent to you by Direct.",
        ),
        "test": Words(
            subject="A test message - {practice}",
            body=(
                "Hello,\n\nThis is a test message of the patient portal. It arrived, and there is "
                "nothing to do."
            ),
            sms="{practice}: a test message of the patient portal. There is nothing to do.",
        ),
    }
)
"""By the name that an outbox message has as its ``template``."""


def built_in(template: str) -> Words:
    """Return the server's own words. Raises `UnknownTemplate`."""
    words = BUILT_IN.get(template)
    if words is None:
        raise UnknownTemplate(f"there is no message '{template[:60]}'")
    return words


_TO_STAFF: Final = frozenset({"message-for-staff"})


def is_in_record(template: str) -> bool:
    """Whether the records of a practice tell that it sent this (`fhir_portal.operations.sending`).

    It is a matter of the server's own words: a practice that says it otherwise changes nothing.
    """
    words = BUILT_IN.get(template)
    if words is None or template in _TO_STAFF:
        return False  # who works there is nobody's patient in it
    return words.told or words.topic != ALWAYS
