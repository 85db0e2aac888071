// Requests to this server, and its errors in words. The API key lives in this module alone.

let key = null;

/** A request that failed; `message` is for people, `status` is 0 if there was no response. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Use this API key from now on. */
export function useKey(value) {
  key = value;
}

/** Return whether there is a key. */
export const hasKey = () => key !== null;

/** Return the JSON of a route. Raises ApiError. */
export async function getJson(path) {
  return (await send(path)).json();
}

/** Return the text of a route. Raises ApiError. */
export async function getText(path) {
  return (await send(path)).text();
}

/** End the thinking of a running request. Raises ApiError. */
export async function finishThinking(id) {
  return (await send(`v1/chat/completions/${encodeURIComponent(id)}/finish-thinking`, { method: "POST" })).json();
}

/** Yield the chunks of a chat completion's stream. Raises ApiError. */
export async function* chat(body, signal) {
  const response = await send("v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  let ended = false;
  for await (const data of events(response.body, signal)) {
    if (data === "[DONE]") ended = true;
    else yield checked(JSON.parse(data));
  }
  if (!ended) throw new ApiError(0, "The connection ended before the answer did. Is the server still running?");
}

function checked(chunk) {
  if (chunk.error) throw new ApiError(chunk.error.code ?? 500, `The server broke off: ${chunk.error.message}`);
  return chunk;
}

async function* events(stream, signal) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        if (part.startsWith("data: ")) yield part.slice("data: ".length);
      }
    }
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "The connection broke. Is the server still running?");
  }
}

async function send(path, options = {}) {
  const headers = { ...options.headers, ...(key === null ? {} : { authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "omit" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, "The server cannot be reached. Is it still running?");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  let message = response.statusText;
  try {
    message = (await response.json()).error.message;
  } catch {
    // not the API's own error, such as a proxy's page
  }
  return new ApiError(response.status, inWords(response, message));
}

function inWords(response, message) {
  switch (response.status) {
    case 401:
      return key === null ? "This server needs an API key." : "The server does not know this API key.";
    case 404:
      return `Not found: ${message}`;
    case 413:
      return `The problem is too large for this server: ${message}`;
    case 429:
      return `Too many requests for this API key. Try again in ${wait(response)}. (${message})`;
    case 503:
      return `The server takes no requests right now. Try again in ${wait(response)}. (${message})`;
    default:
      if (/context length|maximum.*length|longer than|input tokens/i.test(message)) {
        return `The problem and its answer do not fit into the model’s context. ${message}`;
      }
      return `The server refused the request: ${message}`;
  }
}

function wait(response) {
  const after = Number(response.headers.get("retry-after"));
  return after > 0 ? `${after} second${after === 1 ? "" : "s"}` : "a moment";
}
