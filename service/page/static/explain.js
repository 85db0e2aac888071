// One response: why its thinking ended, what it cost, and its timeline.

import { getJson } from "./api.js";
import { byId, count, draw, make, plural, seconds } from "./dom.js";
import { probeText, reasonText } from "./words.js";

/** Show a recent response by its id. */
export async function explain(id) {
  const dialog = byId("explain");
  byId("explain-title").textContent = "Why it stopped";
  try {
    const response = await getJson(`v1/stepgrpo/responses/${encodeURIComponent(id)}`);
    const blocks = response.stepgrpo.choices ?? [response.stepgrpo];
    byId("explain-body").replaceChildren(
      make("p", { class: "note" }, `${response.id}, ${response.model}`),
      ...blocks.flatMap((block, index) => section(block, response.timeline.filter((event) => event.index === index))),
    );
  } catch (error) {
    byId("explain-body").replaceChildren(make("p", { class: "failure" }, error.message));
  }
  if (!dialog.open) dialog.showModal();
}

function section(block, timeline) {
  return [
    make("p", { class: "headline" }, block.exit_reason ? reasonText(block.exit_reason) : "Its thinking was not followed."),
    block.abstained ? make("p", {}, `The policy did not act, or only in part: ${block.abstained}.`) : null,
    facts(block),
    chart(timeline),
    list(timeline),
  ].filter(Boolean);
}

function facts(block) {
  const settings = Object.entries(block.settings).filter(([name]) => name !== "from").map(([name, value]) => `${name} ${value}`);
  const saved = block.saved ? `${count(block.saved.tokens)} tokens (${count(block.saved.low)} to ${count(block.saved.high)}), net of probes ${count(block.saved.net)}; ${block.saved.method}` : "no estimate";
  const rows = [
    ["policy", [block.policy, ...settings].join(", ")],
    ["thinking", block.reasoning_tokens === null ? "not counted" : `${plural(block.reasoning_tokens, "token")} in ${plural(block.steps, "step")}`],
    ["probes", `${count(block.probes)}, which generated ${plural(block.probe_tokens, "token")}`],
    ["discarded past the exit", plural(block.discarded_tokens, "token")],
    ["saved", saved],
  ];
  return make("dl", { class: "facts" }, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function chart(timeline) {
  const at = (name) => timeline.find((event) => event.event === name)?.at;
  const end = at("end") ?? timeline.at(-1).at;
  const first = at("first_token") ?? 0;
  const thought = at("cut") ?? at("thinking_end") ?? first;
  const answer = at("answer") ?? thought;
  const x = (moment) => (end ? (600 * moment) / end : 0);
  const span = (kind, from, to) => draw("rect", { class: kind, x: x(from), y: 8, width: Math.max(x(to) - x(from), 0), height: 20, rx: 3 });
  const probes = timeline.filter((event) => event.event === "probe").map((event) =>
    draw("rect", { class: `probe ${event.result}`, x: x(event.at), y: 34, width: Math.max(x(event.answered ?? event.at) - x(event.at), 3), height: 10, rx: 3 }));
  const cut = at("cut") === undefined ? [] : [draw("rect", { class: "cut", x: Math.min(x(thought), 598), y: 2, width: 2, height: 46 })];
  return make("figure", { class: "timeline" },
    draw("svg", { viewBox: "0 0 600 50", role: "img", "aria-label": `Timeline of ${seconds(end)}: thinking until ${seconds(thought)}, answer from ${seconds(answer)}.` },
      span("wait", 0, first), span("thinking", first, thought), span("answer", answer, end), ...probes, ...cut),
    make("figcaption", {}, make("span", { class: "key thinking" }, "thinking"), make("span", { class: "key probe" }, "probes"), make("span", { class: "key answer" }, "answer"), make("span", {}, seconds(end))));
}

function list(timeline) {
  const rows = timeline.flatMap(told).sort(([one], [other]) => one - other);
  return make("ol", { class: "events" }, ...rows.map(([moment, text]) => make("li", {}, make("b", {}, seconds(moment)), make("span", {}, text))));
}

function told(event) {
  switch (event.event) {
    case "arrived":
      return [[event.at, `The request arrived with ${plural(event.prompt_tokens, "token")}.`]];
    case "first_token":
      return [[event.at, "First token."]];
    case "probe": {
      const place = event.reasoning_tokens === undefined ? "" : ` after ${plural(event.reasoning_tokens, "reasoning token")}, at the end of step ${event.steps}`;
      const confidence = event.confidence === undefined || event.confidence === null ? "" : `confidence ${event.confidence.toFixed(2)}, `;
      const asked = [event.at, `Probe ${event.probe + 1} asked${place}.`];
      return event.answered === null ? [asked] : [asked, [event.answered, `Probe ${event.probe + 1}: ${confidence}${probeText(event)}.`]];
    }
    case "cut":
      return [[event.at, `Exit. ${reasonText(event.reason)} ${plural(event.discarded_tokens, "token")} past it were discarded.`]];
    case "thinking_end":
      return [[event.at, `The thinking ended. ${reasonText(event.reason)}`]];
    case "closing":
      return [[event.at, `${plural(event.injected_tokens, "token")} closed the thinking, and the answer was requested.`]];
    case "answer":
      return [[event.at, "First token of the answer."]];
    case "end":
      return [[event.at, `End: ${event.outcome}.`]];
    default:
      return [];
  }
}
