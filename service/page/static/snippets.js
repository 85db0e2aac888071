// The request of the right lane as curl and Python.

import { hasKey } from "./api.js";
import { byId } from "./dom.js";

/** Show a body's request. */
export function showSnippets(body) {
  byId("curl").textContent = curl(body);
  byId("python").textContent = python(body);
}

function base() {
  return new URL("v1", document.baseURI).href;
}

function curl(body) {
  const quoted = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  const key = hasKey() ? ` \\\n  -H "Authorization: Bearer $API_KEY"` : "";
  return `curl ${base()}/chat/completions \\\n  -H 'Content-Type: application/json'${key} \\\n  -d '${quoted}'`;
}

function python(body) {
  const { vllm_xargs: xargs, ...named } = body;
  const lines = Object.entries({ ...named, extra_body: { vllm_xargs: xargs } }).map(([name, value]) => `    ${name}=${literal(value)},`);
  const key = hasKey() ? 'os.environ["API_KEY"]' : '"none"';
  return [
    ...(hasKey() ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(base())}, api_key=${key})`,
    "response = client.chat.completions.create(",
    ...lines,
    ")",
    "print(response.choices[0].message.content)",
    "print(response.stepgrpo)",
  ].join("\n");
}

/** Return a JSON value as Python; strings of JSON are strings of Python. */
function literal(value) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${literal(each)}`).join(", ")}}`;
  return JSON.stringify(value);
}

/** Let the copy buttons copy their snippet. */
export function enableCopying() {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const code = byId(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code); // no clipboard without HTTPS
        button.textContent = "Selected: press Ctrl+C";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
}
