// Back from the server: read the record with what was granted, and show it.
const show = (id, text) => {
  document.getElementById(id).textContent = text;
};

async function count(client, type) {
  try {
    const found = await client.request(`${type}?patient=${client.patient.id}&_count=3`, {
      pageLimit: 0,
      flat: true,
    });
    return String(found.length);
  } catch (error) {
    return `refused: ${error.status}`;
  }
}

async function refreshed(client) {
  const before = client.state.tokenResponse.access_token;
  try {
    await client.refresh();
  } catch (error) {
    return `refused: ${error.status}`;
  }
  const renewed = before !== client.state.tokenResponse.access_token;
  return renewed ? (await client.patient.read()).id : "the same token";
}

async function main() {
  show("state", "reading");
  const client = await FHIR.oauth2.ready();
  const patient = await client.patient.read();
  show("patient", patient.id);
  show("name", [...patient.name[0].given, patient.name[0].family].join(" "));
  const user = await client.user.read();
  show("user", `${user.resourceType}/${user.id}`);
  const { scope, intent, need_patient_banner } = client.state.tokenResponse;
  show("scope", scope);
  show("screen", JSON.stringify({ intent, need_patient_banner }));
  for (const type of ["Observation", "DocumentReference"]) {
    show(type, await count(client, type));
  }
  if (client.state.tokenResponse.refresh_token) show("refreshed", await refreshed(client));
  show("state", "done");
}

main().catch((error) => show("state", `failed: ${error.message}`));
