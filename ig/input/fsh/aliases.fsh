Alias: $section = https://fhir-portal.example/ig/CodeSystem/portal-section
Alias: $portal-task = https://fhir-portal.example/ig/CodeSystem/portal-task
Alias: $portal-consent-category = https://fhir-portal.example/ig/CodeSystem/consent-category

Alias: $consent-scope = http://terminology.hl7.org/CodeSystem/consentscope
Alias: $consent-action = http://terminology.hl7.org/CodeSystem/consentaction
Alias: $act-code = http://terminology.hl7.org/CodeSystem/v3-ActCode
Alias: $role-code = http://terminology.hl7.org/CodeSystem/v3-RoleCode
Alias: $loinc = http://loinc.org

RuleSet: Published
* ^version = "0.1.0"
* ^experimental = false
* ^publisher = "fhir-portal"
