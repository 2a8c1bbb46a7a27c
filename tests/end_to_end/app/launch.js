// launch.html?iss=…&client_id=…&scope=…, of an EHR also launch=…; more options after the #, as JSON
const asked = new URLSearchParams(location.search);
const more = JSON.parse(decodeURIComponent(location.hash.slice(1)) || "{}");
const state = document.getElementById("state");

state.textContent = "launching";
FHIR.oauth2
  .authorize({
    iss: asked.get("iss"),
    clientId: asked.get("client_id"),
    scope: asked.get("scope"),
    redirectUri: new URL("index.html", location.href).href,
    pkceMode: "required",
    ...more,
  })
  .catch((error) => {
    state.textContent = `failed: ${error.message}`;
  });
