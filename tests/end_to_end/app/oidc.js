// Both ends of a sign-in: oidc.html?settings=…, which leads to the server, and the way back.
const asked = new URLSearchParams(location.search);
const state = document.getElementById("state");

if (asked.has("settings")) sessionStorage.setItem("settings", asked.get("settings"));
const { bound, ...settings } = JSON.parse(sessionStorage.getItem("settings"));
const manager = new oidc.UserManager({
  ...settings,
  redirect_uri: new URL("oidc.html", location.href).href,
  automaticSilentRenew: false,
  ...(bound && {
    dpop: { bind_authorization_code: true, store: new oidc.IndexedDbDPoPStore() },
  }),
});

// Read with the token that is held; the status, and the resource.
async function read(url) {
  const user = await manager.getUser();
  const headers = { authorization: `${user.token_type} ${user.access_token}` };
  if (bound) headers.dpop = await manager.dpopProof(url, user, "GET");
  const answered = await fetch(url, { headers });
  return { status: answered.status, resource: await answered.json() };
}

async function main() {
  if (asked.has("settings")) {
    state.textContent = "leaving";
    await manager.signinRedirect();
    return;
  }
  await manager.signinCallback();
  state.textContent = "done";
}

main().catch((error) => {
  state.textContent = `failed: ${error.message}`;
});
