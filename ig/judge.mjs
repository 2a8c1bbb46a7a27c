// Judge compiled resources by FHIR R4 and by the profiles they claim; one line a finding.
//
//     node judge.mjs <folder of hl7.fhir.r4.core> <folder>...
//
// Exit status 1 when anything is wrong. SUSHI checks neither invariants nor bindings of instances.
import { indexStructureDefinitionBundle, loadDataType, validateResource } from '@medplum/core';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const read = (folder, name) => JSON.parse(readFileSync(join(folder, name), 'utf8'));

function definitions(folder) {
  return readdirSync(folder)
    .filter((name) => name.startsWith('StructureDefinition-'))
    .map((name) => read(folder, name))
    .filter((one) => one.derivation === 'specialization' && one.kind !== 'logical');
}

const [core, ...folders] = process.argv.slice(2);
indexStructureDefinitionBundle(definitions(core));

const resources = folders.flatMap((folder) => readdirSync(folder).map((name) => read(folder, name)));
const profiles = new Map();
for (const one of resources.filter((each) => each.resourceType === 'StructureDefinition')) {
  loadDataType(one);
  profiles.set(one.url, one);
}

let wrong = 0;
for (const resource of resources) {
  const claimed = (resource.meta?.profile ?? []).map((url) => profiles.get(url));
  for (const profile of [undefined, ...claimed]) {
    try {
      validateResource(resource, profile && { profile });
    } catch (error) {
      for (const issue of error.outcome?.issue ?? [{ diagnostics: String(error) }]) {
        if (issue.severity === 'warning') continue;
        wrong += 1;
        const where = issue.expression?.join(', ') ?? '';
        const what = issue.details?.text ?? issue.diagnostics;
        console.error(`${resource.resourceType}/${resource.id} ${where}: ${what}`);
      }
    }
  }
}
console.log(`judged ${resources.length} resources against R4 and ${profiles.size} profile(s): ${wrong} wrong`);
process.exit(wrong ? 1 : 0);
