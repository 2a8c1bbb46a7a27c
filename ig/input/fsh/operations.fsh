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

Instance: portal-account
InstanceOf: OperationDefinition
Usage: #definition
Title: "State of an account"
Description: "How the portal account behind a Person stands: whether there is one, whether it can be used, and by what its owner signs in. It returns no secret, no user name, no contact and nothing that another practice knows."
* insert Operation(portal-account)
* name = "PortalAccount"
* affectsState = false
* insert OnInstance(Person)
* insert Parameter(out, status, 1, 1, code, [["`none`: nobody has an account as this Person. `enabled`, `disabled`."]])
* insert Parameter(out, created, 0, 1, instant, [["When the account was made."]])
* insert Parameter(out, signed-in, 0, 1, instant, [["The latest sign-in among the sessions that are still open."]])
* insert Parameter(out, sessions, 0, 1, integer, [["How many browsers are signed in."]])
* insert Parameter(out, password, 0, 1, boolean, [["Whether the account has a password."]])
* insert Parameter(out, passkeys, 0, 1, integer, [["How many passkeys it has."]])
* insert Parameter(out, authenticator, 0, 1, boolean, [["Whether an authenticator app is asked for beside the password."]])
* insert Parameter(out, recovery-codes, 0, 1, integer, [["How many printed recovery codes are left."]])
* insert Parameter(out, contacts, 0, 1, integer, [["How many addresses and telephone numbers were proved."]])
