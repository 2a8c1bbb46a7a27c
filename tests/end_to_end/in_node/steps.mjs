// The steps of a test, asked for as lines of JSON and each answered by one.
import { createInterface } from "node:readline";

const PATIENCE = 30_000;

export const packages = process.argv[2]; // node_modules, as a file: address

export async function answer(steps) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { step, ...asked } = JSON.parse(line);
    let told;
    try {
      told = { result: (await patiently(steps[step](asked))) ?? null };
    } catch (error) {
      told = { thrown: described(error) };
    }
    process.stdout.write(`${JSON.stringify(told)}\n`);
  }
}

async function patiently(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("too late")), PATIENCE);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function described(error) {
  return {
    name: error.name,
    message: [error.message, error.cause?.message].filter(Boolean).join(": "),
    code: error.code ?? "",
    error: error.error ?? "",
    status: error.status ?? error.response?.status ?? 0,
    resource: error.response?.data ?? null,
  };
}
