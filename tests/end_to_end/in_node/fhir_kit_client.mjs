// fhir-kit-client with a token that somebody else fetched.
import { answer, packages } from "./steps.mjs";

const { Client } = await import(`${packages}/fhir-kit-client/dist/index.js`);

let client;

await answer({
  async open({ base, token }) {
    client = new Client({ baseUrl: base, bearerToken: token });
  },

  async smart() {
    return client.smartAuthMetadata();
  },

  async capabilities() {
    return client.capabilityStatement();
  },

  async read({ type, id }) {
    return client.read({ resourceType: type, id });
  },

  async vread({ type, id, version }) {
    return client.vread({ resourceType: type, id, version });
  },

  async create({ resource }) {
    return client.create({ resourceType: resource.resourceType, body: resource });
  },

  async resolve({ reference }) {
    return client.resolve({ reference });
  },

  // Each page of a search, as it came.
  async search({ type, parameters }) {
    const pages = [await client.search({ resourceType: type, searchParams: parameters })];
    for (let next; (next = client.nextPage({ bundle: pages.at(-1) })); ) pages.push(await next);
    return pages;
  },

  // Forward to the last page and back to the first.
  async back({ type, parameters }) {
    const pages = [await client.search({ resourceType: type, searchParams: parameters })];
    for (let next; (next = client.nextPage({ bundle: pages.at(-1) })); ) pages.push(await next);
    for (let before; (before = client.prevPage({ bundle: pages.at(-1) })); ) pages.push(await before);
    return pages;
  },
});
