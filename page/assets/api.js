// What the coordinator is asked: JSON in the names of chorus.v1. Knows nothing about what is shown.

const TOKEN = "chorus.token";

/** Why a request failed: a code and a sentence, and the field at fault where there is one. */
export class Failure extends Error {
  constructor({ code, message, field }) {
    super(message);
    this.code = code;
    this.field = field;
  }
}

/** The bearer token, which this tab keeps until it is closed. */
export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (text) => (text ? sessionStorage.setItem(TOKEN, text) : sessionStorage.removeItem(TOKEN)),
};

function headers(more = {}) {
  const bearer = token.get();
  return bearer ? { ...more, authorization: `Bearer ${bearer}` } : more;
}

async function refused(response) {
  const said = await response.json().catch(() => null);
  return new Failure(said?.message ? said : { code: String(response.status), message: `the server answered ${response.status}` });
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError" || error.name === "TimeoutError") throw error;
    throw new Failure({ code: "UNREACHABLE", message: "the coordinator can't be reached" });
  }
  if (!response.ok) throw await refused(response);
  return response;
}

export async function status() {
  const response = await ask("/api/status", { headers: headers(), signal: AbortSignal.timeout(5000) });
  return response.json();
}

/** Every message of a generation as it comes. */
export async function* generate(request, signal) {
  const options = { method: "POST", headers: headers({ "content-type": "application/json" }), body: JSON.stringify(request), signal };
  const response = await ask("/api/generate", options);
  let rest = "";
  for await (const text of pieces(response.body.pipeThrough(new TextDecoderStream()))) {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines.filter((line) => line !== "")) {
      const message = JSON.parse(line);
      if (message.error) throw new Failure(message.error);
      yield message;
    }
  }
}

// Not every browser can iterate over a stream.
async function* pieces(stream) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure({ code: "UNREACHABLE", message: "the connection to the coordinator broke" });
  } finally {
    reader.releaseLock();
  }
}
