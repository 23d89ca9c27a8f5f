// Sends requests to the server and turns error responses into messages.

import { change, state } from "./state.js";
import { askForKey } from "./key.js";
import { explain } from "./words.js";

// setting of the rate limit by path
const LIMITS = [[/^\/(jobs|plan)/, "DIA_RATE_LIMIT_JOBS"], [/\/upload$/, "DIA_RATE_LIMIT_UPLOAD"], [/^/, "DIA_RATE_LIMIT_GENERATE"]];

export class Refusal extends Error {
  constructor(words, status = 0, code = "") {
    super(words);
    this.status = status;
    this.code = code;
  }
}

/** Send a request; on a 401 ask the user for an API key and send it again. Throws Refusal. */
export async function send(method, path, { json, form, signal } = {}) {
  const headers = {};
  const { key } = state;
  if (key) headers.Authorization = `Bearer ${key}`;
  if (json !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method, headers, body: json === undefined ? form : JSON.stringify(json), signal,
      referrerPolicy: "same-origin", // without TLS, the server knows its own page only by this
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server does not answer. Is it still running?");
  }
  if (response.status === 401 || (key && await tooManyWrongKeys(response))) {
    // a concurrent request may have asked already
    if (state.key === key) change({ key: await askForKey(Boolean(key)) });
    return send(method, path, { json, form, signal });
  }
  if (!response.ok) throw await refusal(response, path);
  return response;
}

/** Return whether a 429 is due to many wrong keys, not to a rate limit or proxy: a valid key still passes. */
async function tooManyWrongKeys(response) {
  if (response.status !== 429 || response.headers.has("X-RateLimit-Limit")) return false;
  const body = await response.clone().json().catch(() => ({}));
  return body.error_code === "RATE_LIMIT_EXCEEDED";
}

export const get = async (path) => (await send("GET", path)).json();
export const post = async (path, json) => (await send("POST", path, { json })).json();
export const put = async (path, json) => (await send("PUT", path, { json })).json();
export const remove = async (path) => (await send("DELETE", path)).json();

async function refusal(response, path) {
  const body = await response.json().catch(() => ({}));
  let words = explain(body) || `The server answered ${response.status} ${response.statusText}`;
  if (response.headers.has("X-RateLimit-Limit") && response.status === 429) {
    const wait = response.headers.get("Retry-After");
    const [, setting] = LIMITS.find(([paths]) => paths.test(path));
    words = `That is more than this server allows in a minute${wait ? `; try again in ${wait} s` : ""}. `
      + `At home, start it with ${setting}=0.`;
  }
  return new Refusal(words, response.status, body.error_code || "");
}

/** Whether the error says that the server has no such route. */
export function unknown(error) {
  return error instanceof Refusal && (error.code === "NOT_FOUND" || error.status === 405);
}
