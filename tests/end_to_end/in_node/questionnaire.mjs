// Which questions of a form another implementation shows, given answers: Medplum's.
import { answer, packages } from "./steps.mjs";

globalThis.WebSocket ??= class {}; // the library is made for browsers, and asks for one on its way in
const { isQuestionEnabled } = await import(`${packages}/@medplum/react-hooks/dist/esm/index.mjs`);

function shown(items, response) {
  return (items ?? [])
    .filter((item) => isQuestionEnabled(item, response))
    .flatMap((item) => [item.linkId, ...shown(item.item, response)]);
}

await answer({
  shown: async ({ questionnaire, responses }) =>
    responses.map((response) => shown(questionnaire.item, response)),
});
