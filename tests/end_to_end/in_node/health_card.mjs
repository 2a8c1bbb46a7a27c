// kill-the-clipboard verifies SMART Health Cards; jsQR reads the picture of a code.
import { answer, packages } from "./steps.mjs";

const { Directory, SHCReader } = await import(`${packages}/kill-the-clipboard/dist/index.esm.js`);
const { default: jsQR } = await import(`${packages}/jsqr/dist/jsQR.js`);

async function told(card) {
  const bundle = await card.asBundle({ optimizeForQR: false });
  const kinds = bundle.entry.map((one) => one.resource.resourceType);
  const codes = bundle.entry.slice(1).map((one) => one.resource.vaccineCode.coding[0].code);
  return { jws: card.asJWS(), kinds, codes };
}

await answer({
  async file({ content, key }) {
    return told(await new SHCReader({ publicKey: key }).fromFileContent(content));
  },
  async card({ jws, key, directory }) {
    const issuerDirectory = directory ? Directory.fromJSON(directory) : null;
    return told(await new SHCReader({ publicKey: key, issuerDirectory }).fromJWS(jws));
  },
  async code({ rows, key }) {
    const pixels = rows.flat().flatMap((dark) => (dark ? [0, 0, 0, 255] : [255, 255, 255, 255]));
    const { data, chunks, version } = jsQR(new Uint8ClampedArray(pixels), rows.length, rows.length);
    const card = await told(await new SHCReader({ publicKey: key }).fromQRNumeric(data));
    return { ...card, text: data, version, segments: chunks.map((one) => one.type) };
  },
});
