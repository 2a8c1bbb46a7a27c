// A SMART App Launch client in one file: standalone launch, public client, PKCE with S256.
// Copy from it what you like. It keeps its token in this page, and nowhere else.
"use strict";

const sandbox = document.querySelector("[data-sandbox]").dataset;
const KEPT = "developer-sandbox";
let token = null;

const encode = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes)))
    .replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
const random = () => encode(crypto.getRandomValues(new Uint8Array(32)));
const show = (id, text) => { document.getElementById(id).textContent = text; };
const say = (text) => { show("sandbox-state", text); };
const start = document.getElementById("sandbox-start");
const revoke = document.getElementById("sandbox-revoke");

const json = async (address, options = {}) => {
  const answer = await fetch(address, { ...options, credentials: "omit" });
  const body = await answer.json();
  if (!answer.ok) {
    throw new Error(body.error_description || body.error || body.issue?.[0]?.diagnostics || answer.status);
  }
  return body;
};

// Everything an app has to know about a server follows from its FHIR base.
const discover = () => json(`${sandbox.fhir}/.well-known/smart-configuration`);

const launch = async () => {
  say("Reading what the server says of itself …");
  const server = await discover();
  const state = random();
  const verifier = random();
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  sessionStorage.setItem(KEPT, JSON.stringify({ state, verifier }));
  const asked = new URLSearchParams({
    response_type: "code",
    client_id: sandbox.client,
    redirect_uri: sandbox.redirect,
    scope: document.getElementById("sandbox-scope").value,
    state,
    aud: sandbox.fhir,
    code_challenge: encode(digest),
    code_challenge_method: "S256",
  });
  location.assign(`${server.authorization_endpoint}?${asked}`);
};

const form = (address, fields) => fetch(address, {
  method: "POST",
  credentials: "omit",
  body: new URLSearchParams(fields),
});

// Back from the server. The state says that it was this page which asked; iss (RFC 9207) that it
// was this server which answered.
const finish = async (answer) => {
  const kept = JSON.parse(sessionStorage.getItem(KEPT) || "null");
  sessionStorage.removeItem(KEPT);
  if (!kept || answer.get("state") !== kept.state) throw new Error("this page did not ask for that");
  const server = await discover();
  if (answer.get("iss") !== server.issuer) throw new Error("another server answered");
  if (answer.get("error")) {
    throw new Error(`${answer.get("error")}: ${answer.get("error_description") || ""}`);
  }
  say("Exchanging the code …");
  token = await json(server.token_endpoint, {
    method: "POST",
    body: new URLSearchParams({
      grant_type: "authorization_code",
      code: answer.get("code"),
      redirect_uri: sandbox.redirect,
      client_id: sandbox.client,
      code_verifier: kept.verifier,
    }),
  });
  const hidden = (text) => `${text.slice(0, 6)}…`;
  const shown = { ...token, access_token: hidden(token.access_token) };
  if (token.id_token) shown.id_token = hidden(token.id_token);
  show("sandbox-token", JSON.stringify(shown, null, 2));
  const headers = { Authorization: `Bearer ${token.access_token}`, Accept: "application/fhir+json" };
  const found = [];
  for (const asked of [`Patient/${token.patient}`, "Observation?_summary=count", "Condition?_summary=count"]) {
    try {
      found.push([asked, await json(`${sandbox.fhir}/${asked}`, { headers })]);
    } catch (error) {
      found.push([asked, `refused: ${error.message}`]);
    }
  }
  show("sandbox-found", found.map(([asked, body]) =>
    `GET ${sandbox.fhir}/${asked}\n${typeof body === "string" ? body : JSON.stringify(body, null, 2)}`,
  ).join("\n\n"));
  document.getElementById("sandbox-result").hidden = false;
  revoke.addEventListener("click", async () => {
    await form(server.revocation_endpoint, { token: token.access_token, client_id: sandbox.client });
    const again = await fetch(`${sandbox.fhir}/Patient/${token.patient}`, { headers, credentials: "omit" });
    say(`The token is given back. Used again, it is answered with ${again.status}.`);
    revoke.hidden = true;
  });
  say("Done: this is what an app sees.");
};

const failing = (work) => work.catch((error) => say(`It did not work: ${error.message}`));

start.addEventListener("click", () => failing(launch()));
const answer = new URLSearchParams(location.search);
if (answer.has("state")) {
  history.replaceState(null, "", location.pathname); // no code in the history, none in a bookmark
  failing(finish(answer));
}
