// The race: two lanes run the same problem at the same time, and then are compared.

import { ApiError, chat, finishThinking } from "./api.js";
import { byId, count, make, plural, seconds } from "./dom.js";
import { Lane } from "./lane.js";
import { showSnippets } from "./snippets.js";

const ADVICE = "Reason step by step and put the final answer in \\boxed{}.";
const EXAMPLES = ["29+8+9+5+1-9+2+5-8", "47+8-5+9", "63-4-8+2+6-9", "45+6+9-4+4"].map((sum) => ({ name: sum, text: `Compute ${sum}. ${ADVICE}` }));

export class Race {
  /** `needsKey` asks for an API key, `explain` shows a response by its id. */
  constructor({ needsKey, explain }) {
    this.needsKey = needsKey;
    const actions = { answerNow: (lane) => this.answerNow(lane), changed: () => this.refreshCode(), explain };
    this.left = new Lane("left", actions);
    this.right = new Lane("right", actions);
    this.running = null;
    tell("How many tokens the right lane saves, compared with the left one, appears here.");
    byId("lanes").append(this.left.element, this.right.element);
    byId("question").value = EXAMPLES[0].text;
    byId("examples").append(
      ...EXAMPLES.map(({ name, text }) => make("button", { type: "button", class: "chip", onclick: () => this.pick(text) }, name)),
    );
    byId("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.running) this.running.abort();
      else this.run();
    });
    byId("ask").addEventListener("input", () => this.refreshCode());
  }

  /** Offer the server's models and policies. */
  offer(models, { policy, policies, settings }) {
    this.settings = settings;
    const exits = policy === "none" ? "confidence" : policy;
    const named = policies.includes(exits) ? policies : [...policies, exits];
    this.defaultPolicy = policy;
    this.left.offer(models, named, models[0], "none");
    this.right.offer(models, named, models[0], exits);
    byId("threshold").placeholder = settings.threshold ?? "server’s";
    this.refreshCode();
  }

  pick(text) {
    byId("question").value = text;
    this.refreshCode();
    byId("start").focus();
  }

  /** Return the body of a lane's request. */
  body(lane) {
    const xargs = { exit_policy: lane.policy.value };
    if (lane.policy.value !== "none") {
      if (byId("threshold").value !== "") xargs.exit_threshold = Number(byId("threshold").value);
      if (byId("budget").value !== "") xargs.exit_budget_tokens = Number(byId("budget").value);
    }
    const body = {
      model: lane.model.value,
      messages: [{ role: "user", content: byId("question").value }],
      temperature: Number(byId("temperature").value),
      seed: Number(byId("seed").value),
      vllm_xargs: xargs,
    };
    if (byId("most").value !== "") body.max_tokens = Number(byId("most").value);
    return body;
  }

  refreshCode() {
    showSnippets(this.body(this.right));
  }

  /** Run both lanes. */
  async run() {
    const running = new AbortController();
    this.running = running;
    tell("Both lanes are running.");
    byId("start").textContent = "Stop";
    const lanes = [this.left, this.right];
    const timer = setInterval(() => this.refresh(), 100);
    try {
      await Promise.all(lanes.map((lane) => this.stream(lane, running)));
    } finally {
      clearInterval(timer);
      this.running = null;
      byId("start").textContent = "Start the race";
      this.refresh();
    }
    if (running.signal.aborted) tell("Stopped: there is nothing to compare.");
    else if (lanes.some((lane) => lane.failed)) tell("A lane failed: there is nothing to compare.");
    else this.compare();
  }

  async stream(lane, running) {
    const asked = this.body(lane);
    const body = {
      ...asked,
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true },
      vllm_xargs: { ...asked.vllm_xargs, exit_events: true },
    };
    lane.start(asked.vllm_xargs.exit_threshold ?? this.settings?.threshold ?? null);
    const began = performance.now();
    lane.clock = setInterval(() => { lane.elapsed = (performance.now() - began) / 1000; }, 50);
    try {
      for await (const chunk of chat(body, running.signal)) lane.take(chunk);
    } catch (error) {
      if (!running.signal.aborted) lane.fail(error instanceof ApiError ? error.message : String(error));
      if (error.status === 401) this.needsKey();
    } finally {
      clearInterval(lane.clock);
      lane.elapsed = (performance.now() - began) / 1000;
      lane.stop();
    }
  }

  async answerNow(lane) {
    lane.now.disabled = true;
    try {
      await finishThinking(lane.id);
    } catch (error) {
      lane.fail(error.message);
    }
  }

  refresh() {
    const most = Math.max(this.left.tokens, this.right.tokens);
    this.left.refresh(most);
    this.right.refresh(most);
  }

  /** Compare both runs: the left lane's own run is the counterfactual. */
  compare() {
    const { left, right } = this;
    const saved = left.tokens - right.tokens;
    const share = left.tokens ? Math.round((100 * Math.abs(saved)) / left.tokens) : 0;
    const same = left.model.value === right.model.value;
    const result = byId("result");
    const { kind, text } = verdict(left, right);
    const headline = `${change(saved, kind === "differs")} (measured)`;
    const lines = [
      `${count(right.tokens)} tokens instead of ${count(left.tokens)}${saved ? `, ${share} % ${saved > 0 ? "fewer" : "more"}` : ""}, in ${seconds(right.elapsed)} instead of ${seconds(left.elapsed)}.${right.probeTokens ? ` Net of the ${plural(right.probeTokens, "token")} of its probes: ${count(saved - right.probeTokens)}.` : ""}`,
      `Measured on this one pair of runs: compared with the left lane${same ? "" : ", which runs another model"}.`,
      predicted(right.block),
    ];
    result.className = `result done ${kind}`;
    result.replaceChildren(
      make("div", {}, make("p", { class: "headline", id: "saved" }, headline), make("p", { class: `verdict ${kind}`, id: "agreement" }, text)),
      make("div", { class: "note" }, ...lines.filter(Boolean).map((line) => make("p", {}, line))),
    );
  }
}

/** Show a sentence where the result will be. */
function tell(text) {
  byId("result").className = "result";
  byId("result").replaceChildren(make("p", {}, text));
}

function change(saved, differs) {
  if (saved === 0) return "No tokens saved";
  if (saved < 0) return `${plural(-saved, "token")} more`;
  return differs ? `${plural(saved, "token")} fewer, but another answer` : `Saved ${plural(saved, "token")}`;
}

function predicted(block) {
  const saved = block?.saved;
  if (!saved || !saved.tokens) return null;
  return `Without a left lane the server reports ${count(saved.tokens)} (90 % interval ${count(saved.low)} to ${count(saved.high)}; ${saved.method}).`;
}

function verdict(left, right) {
  const [one, other] = [left, right].map((lane) => boxed(lane.content));
  if (one === null || other === null) return { kind: "", text: "The answers have no \\boxed{} to compare: read them in the lanes." };
  if (one === other) return { kind: "same", text: `Same answer: ${one}` };
  return { kind: "differs", text: `Answers differ: ${one} on the left, ${other} on the right` };
}

/** Return the content of the last `\boxed{}` without white space; null without one. */
export function boxed(text) {
  const start = text.lastIndexOf("\\boxed{");
  if (start < 0) return null;
  let depth = 0;
  for (let at = start + "\\boxed".length; at < text.length; at += 1) {
    if (text[at] === "{") depth += 1;
    if (text[at] === "}") depth -= 1;
    if (depth === 0) return text.slice(start + "\\boxed{".length, at).replace(/\s+/g, "");
  }
  return null;
}
