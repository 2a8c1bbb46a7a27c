// openid-client as an app uses it; what it holds between two steps stays in here.
import { answer, packages } from "./steps.mjs";

const client = await import(`${packages}/openid-client/build/index.js`);

const KEYS = {
  ES384: { name: "ECDSA", namedCurve: "P-384" },
  RS384: {
    name: "RSASSA-PKCS1-v1_5",
    hash: "SHA-384",
    modulusLength: 2048,
    publicExponent: new Uint8Array([1, 0, 1]),
  },
};
const loopback = { execute: [client.allowInsecureRequests] };

let config, key, proofs, sent, tokens;

function authentication(method, secret) {
  return {
    none: () => client.None(),
    client_secret_basic: () => client.ClientSecretBasic(secret),
    client_secret_post: () => client.ClientSecretPost(secret),
    private_key_jwt: () => client.PrivateKeyJwt({ key, kid: "one" }),
  }[method]();
}

function kept(answered) {
  tokens = answered;
  return { ...answered, claims: answered.claims() ?? null };
}

await answer({
  // Make a key to authenticate with; its public half.
  async key({ alg }) {
    const pair = await crypto.subtle.generateKey(KEYS[alg], true, ["sign", "verify"]);
    key = pair.privateKey;
    const { key_ops, ext, ...jwk } = await crypto.subtle.exportKey("jwk", pair.publicKey);
    return { ...jwk, alg, use: "sig", kid: "one" };
  },

  async discover({ issuer, client_id, method = "none", secret }) {
    const as = authentication(method, secret);
    config = await client.discovery(new URL(issuer), client_id, {}, as, loopback);
    return config.serverMetadata();
  },

  // Discover, register (RFC 7591) and be who was registered.
  async register({ issuer, metadata }) {
    const method = metadata.token_endpoint_auth_method;
    const as = method === "private_key_jwt" || method === "none" ? authentication(method) : undefined;
    config = await client.dynamicClientRegistration(new URL(issuer), metadata, as, loopback);
    const registered = config.clientMetadata();
    if (method === "client_secret_basic") {
      const secret = registered.client_secret;
      config = await client.discovery(
        new URL(issuer), registered.client_id, {}, authentication(method, secret), loopback,
      );
    }
    return registered;
  },

  async bind({ alg }) {
    proofs = { DPoP: client.getDPoPHandle(config, await client.randomDPoPKeyPair(alg)) };
  },

  async authorize({ parameters, par = false }) {
    const pkceCodeVerifier = client.randomPKCECodeVerifier();
    sent = {
      pkceCodeVerifier,
      expectedState: client.randomState(),
      expectedNonce: client.randomNonce(),
      idTokenExpected: true,
    };
    if (parameters.max_age) sent.maxAge = Number(parameters.max_age);
    const asked = {
      ...parameters,
      code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier),
      code_challenge_method: "S256",
      state: sent.expectedState,
      nonce: sent.expectedNonce,
    };
    const build = par ? client.buildAuthorizationUrlWithPAR : client.buildAuthorizationUrl;
    return (await build(config, asked, proofs)).href;
  },

  async callback({ address }) {
    return kept(
      await client.authorizationCodeGrant(config, new URL(address), sent, undefined, proofs),
    );
  },

  async refresh({ parameters = {} }) {
    return kept(await client.refreshTokenGrant(config, tokens.refresh_token, parameters, proofs));
  },

  async credentials({ scope }) {
    return kept(await client.clientCredentialsGrant(config, { scope }, proofs));
  },

  // `bound` false leaves out the proof that the token asks for.
  async read({ address, bound = true }) {
    const url = new URL(address);
    let answered;
    if (bound) {
      const { access_token } = tokens;
      answered = await client.fetchProtectedResource(
        config, access_token, url, "GET", undefined, undefined, proofs,
      );
    } else {
      const headers = { authorization: `Bearer ${tokens.access_token}` };
      answered = await fetch(url, { headers });
    }
    return { status: answered.status, resource: await answered.json() };
  },

  async introspect({ kind }) {
    return client.tokenIntrospection(config, tokens[kind]);
  },

  async revoke({ kind }) {
    await client.tokenRevocation(config, tokens[kind]);
  },
});
