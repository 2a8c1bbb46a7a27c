// A standalone launch: launch.html?iss=…&client_id=…&scope=…
const asked = new URLSearchParams(location.search);
const state = document.getElementById("state");

state.textContent = "launching";
FHIR.oauth2
  .authorize({
    iss: asked.get("iss"),
    clientId: asked.get("client_id"),
    scope: asked.get("scope"),
    redirectUri: new URL("index.html", location.href).href,
    pkceMode: "required",
  })
  .catch((error) => {
    state.textContent = `failed: ${error.message}`;
  });
