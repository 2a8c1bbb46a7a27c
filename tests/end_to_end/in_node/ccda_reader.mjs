// @medplum/ccda reads a C-CDA document: how many resources each section gave, measurements by value.
import { readFileSync } from "node:fs";
import { answer, packages } from "./steps.mjs";

const { convertCcdaToFhir, convertXmlToCcda } = await import(
  `${packages}/@medplum/ccda/dist/esm/index.mjs`
);

await answer({
  async read({ path }) {
    const { entry } = convertCcdaToFhir(convertXmlToCcda(readFileSync(path, "utf8")));
    const held = new Map(entry.map((one) => [`${one.resource.resourceType}/${one.resource.id}`, one.resource]));
    const values = ({ reference }) => {
      const members = held.get(reference)?.hasMember ?? [];
      return members.length ? members.reduce((sum, one) => sum + values(one), 0) : held.has(reference) ? 1 : 0;
    };
    const sections = {};
    for (const section of entry[0].resource.section) {
      sections[section.title] = (section.entry ?? []).reduce((sum, one) => sum + values(one), 0);
    }
    const patient = entry.map((one) => one.resource).find((one) => one.resourceType === "Patient");
    return { sections, patient: patient.name[0].family };
  },
});
