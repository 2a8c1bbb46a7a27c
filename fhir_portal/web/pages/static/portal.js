// What pages can do beside what they do without a script: show a password, and use passkeys.
"use strict";

// --- showing a password --------------------------------------------------------------------------

for (const field of document.querySelectorAll("input[data-showable]")) {
  const button = document.createElement("button");
  const name = document.querySelector(`label[for="${field.id}"]`).textContent;
  button.type = "button";
  button.className = "show";
  button.textContent = "Show";
  button.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-label", `Show: ${name}`);
  button.addEventListener("click", () => {
    const shown = field.type === "text";
    field.type = shown ? "password" : "text";
    button.setAttribute("aria-pressed", String(!shown));
  });
  field.after(button);
  field.parentElement.classList.add("showable");
  field.form.addEventListener("submit", () => { field.type = "password"; });
}

// A password that can be looked at need not be typed twice.
for (const element of document.querySelectorAll("form [data-without-script]")) {
  element.remove();
}

// --- passkeys (WebAuthn Level 3, section 5.1) ----------------------------------------------------

const bytes = (text) =>
  Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer)))
    .replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");

const decoded = (options) => ({
  ...options,
  challenge: bytes(options.challenge),
  ...(options.user && { user: { ...options.user, id: bytes(options.user.id) } }),
  ...Object.fromEntries(
    ["allowCredentials", "excludeCredentials"].filter((name) => options[name]).map((name) => [
      name,
      options[name].map((one) => ({ ...one, id: bytes(one.id) })),
    ]),
  ),
});

const encoded = (credential) => {
  const response = { clientDataJSON: text(credential.response.clientDataJSON) };
  for (const name of ["attestationObject", "authenticatorData", "signature", "userHandle"]) {
    if (credential.response[name]) response[name] = text(credential.response[name]);
  }
  if (credential.response.getTransports) response.transports = credential.response.getTransports();
  const id = text(credential.rawId);
  return { id, rawId: id, type: credential.type, response };
};

const ceremonies = {
  add: (publicKey) => navigator.credentials.create({ publicKey }),
  prove: (publicKey) => navigator.credentials.get({ publicKey }),
};

const ask = async (box, form) => {
  const sent = new URLSearchParams();
  for (const name of ["form_token", "request"]) {
    if (form.elements[name]) sent.set(name, form.elements[name].value);
  }
  const answer = await fetch(box.dataset.options, { method: "POST", body: sent });
  if (answer.status === 429) throw new Error("Too many tries. Wait a few minutes, or go on another way.");
  if (!answer.ok) throw new Error("Reload this page and try again.");
  const credential = await ceremonies[box.dataset.passkey](decoded(await answer.json()));
  const field = document.createElement("input");
  field.type = "hidden";
  field.name = "credential";
  field.value = JSON.stringify(encoded(credential));
  form.append(field);
  form.action = box.dataset.action;
  form.submit();
};

const said = {
  InvalidStateError: "This device has a passkey for your account already.",
  NotAllowedError: "No passkey was used. Try again, or go on another way.",
  SecurityError: "Passkeys do not work at this address.",
};

if (window.PublicKeyCredential) {
  for (const box of document.querySelectorAll("[data-passkey]")) {
    const [button, problem] = [box.querySelector("button"), box.querySelector(".problem")];
    const form = box.closest("form");
    box.hidden = false;
    for (const element of document.querySelectorAll("p[data-without-script]")) element.remove();
    if (!form.querySelector("[type=submit]")) {
      form.addEventListener("submit", (event) => { event.preventDefault(); button.click(); });
    }
    button.addEventListener("click", async () => {
      problem.hidden = button.disabled = true;
      try {
        await ask(box, form);
      } catch (error) {
        problem.textContent = said[error.name] || error.message;
        problem.hidden = button.disabled = false;
      }
    });
  }
}
