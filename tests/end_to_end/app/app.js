// Back from the server: read the record with what was granted, and show it.
const show = (id, text) => {
  document.getElementById(id).textContent = text;
};

async function count(client, type) {
  try {
    const found = await client.request(`${type}?patient=${client.patient.id}`, {
      pageLimit: 0,
      flat: true,
    });
    return String(found.length);
  } catch (error) {
    return `refused: ${error.status}`;
  }
}

async function main() {
  show("state", "reading");
  const client = await FHIR.oauth2.ready();
  const patient = await client.patient.read();
  show("patient", patient.id);
  show("name", [...patient.name[0].given, patient.name[0].family].join(" "));
  const user = await client.user.read();
  show("user", `${user.resourceType}/${user.id}`);
  show("scope", client.state.tokenResponse.scope);
  for (const type of ["Observation", "DocumentReference"]) {
    show(type, await count(client, type));
  }
  const before = client.state.tokenResponse.access_token;
  await client.refresh();
  const renewed = before !== client.state.tokenResponse.access_token;
  show("refreshed", renewed ? (await client.patient.read()).id : "the same token");
  show("state", "done");
}

main().catch((error) => show("state", `failed: ${error.message}`));
