RuleSet: Operation(code)
* version = "0.1.0"
* experimental = false
* publisher = "fhir-portal"
* url = "https://fhir-portal.example/ig/OperationDefinition/{code}"
* status = #active
* kind = #operation
* code = #{code}

RuleSet: OnInstance(type)
* resource = #{type}
* system = false
* type = false
* instance = true

RuleSet: OnType(type)
* resource = #{type}
* system = false
* type = true
* instance = false

RuleSet: Parameter(use, name, min, max, type, documentation)
* parameter[+].name = #{name}
* parameter[=].use = #{use}
* parameter[=].min = {min}
* parameter[=].max = "{max}"
* parameter[=].documentation = {documentation}
* parameter[=].type = #{type}

RuleSet: Part(use, name, min, max, type, documentation)
* parameter[=].part[+].name = #{name}
* parameter[=].part[=].use = #{use}
* parameter[=].part[=].min = {min}
* parameter[=].part[=].max = "{max}"
* parameter[=].part[=].documentation = {documentation}
* parameter[=].part[=].type = #{type}

Instance: portal-account
InstanceOf: OperationDefinition
Usage: #definition
Title: "State of an account"
Description: "How the portal account behind a Person stands: whether there is one, whether it can be used, and by what its owner signs in. It returns no secret, no user name, no contact, and neither records nor apps of another practice. What it tells of the sign-in (when, by what, in which browsers) is the same whichever practice asks: one human has one."
* insert Operation(portal-account)
* name = "PortalAccount"
* affectsState = false
* insert OnInstance(Person)
* insert Parameter(out, status, 1, 1, code, [["`none`: nobody has an account as this Person. `closed`: the practice ended the portal for them (`$account-close`). `enabled`, `disabled`."]])
* insert Parameter(out, at-practice, 0, 1, code, [["Whether the account may use its records at this practice: `enabled`; `disabled`; `unproved`: closed since another practice helped to recover the account, until this one's own proof is repeated."]])
* insert Said([["Since when the practice has it like this, by whom, and why. Absent where nothing was ever said."]])
* insert Parameter(out, created, 0, 1, instant, [["When the account was made."]])
* insert Parameter(out, signed-in, 0, 1, instant, [["The latest sign-in."]])
* insert Parameter(out, sessions, 0, 1, integer, [["How many browsers are signed in."]])
* insert Parameter(out, password, 0, 1, boolean, [["Whether the account has a password."]])
* insert Parameter(out, passkeys, 0, 1, integer, [["How many passkeys it has."]])
* insert Parameter(out, authenticator, 0, 1, boolean, [["Whether an authenticator app is asked for beside the password."]])
* insert Parameter(out, recovery-codes, 0, 1, integer, [["How many printed recovery codes are left."]])
* insert Parameter(out, contacts, 0, 1, integer, [["How many addresses and telephone numbers were proved."]])
* insert Parameter(out, renewal, 0, 1, code, [["Why the owner has to renew what they sign in with: `suspected-compromise`, `staff-request`, `assisted-recovery`."]])
* insert Parts(out, session, 0, *, [["The browsers that are signed in, the last used first."]])
* insert Part(out, id, 1, 1, string, [["What `$end-session` calls it by. It opens nothing."]])
* insert Part(out, device, 0, 1, string, [["Browser and system, in words."]])
* insert Part(out, since, 1, 1, instant, [["When somebody signed in there."]])
* insert Part(out, used, 1, 1, instant, [["When it was last used, to the minute."]])
* insert Parts(out, app, 0, *, [["The apps that are connected to the person's records at this practice."]])
* insert Part(out, id, 1, 1, string, [["What `$revoke-app` calls it by."]])
* insert Part(out, name, 0, 1, string, [["What the app is called. Told to staff alone."]])
* insert Part(out, since, 1, 1, instant, [["When it was connected."]])
* insert Part(out, used, 0, 1, instant, [["When it last used the record."]])
* insert Part(out, until, 1, 1, instant, [["When its access ends at the latest."]])
* insert Part(out, by-proxy, 1, 1, boolean, [["Whether somebody who acts for the person connected it."]])
* insert Parts(out, recovery, 0, *, [["What staff of this practice have begun to help the owner back in. Told to staff alone whose level has `recover`."]])
* insert Part(out, id, 1, 1, string, [["What `$approve-recovery` and `$cancel-recovery` call it by. It opens nothing."]])
* insert Part(out, half, 1, 1, code, [["What the owner needs beside the desk code: `contact`, `birth-date`."]])
* insert Part(out, needs-approval, 1, 1, boolean, [["Whether it waits for a second member of staff."]])
* insert Part(out, opens, 1, 1, instant, [["From when it can be used."]])
* insert Part(out, until, 1, 1, instant, [["When it ends."]])
* insert Parts(out, invitation, 0, *, [["The invitations that can be used now to become this Person."]])
* insert Part(out, task, 1, 1, Reference, [["Its Task."]])
* insert Part(out, state, 1, 1, code, [["How far it has come."]])
* insert Part(out, channel, 1, 1, code, [["How it travels: `mail`, `sms`, `letter`, `paper`, `desk`."]])
* insert Part(out, since, 1, 1, instant, [["When it was made."]])
* insert Part(out, until, 1, 1, instant, [["When it ends."]])
