// What the server has done so far: savings with their method, exits, and recent requests.

import { getJson, getText } from "./api.js";
import { bar, byId, count, make } from "./dom.js";
import { buckets, parse, sumsBy, total } from "./metrics.js";

const EVERY = 5000; // milliseconds

export class Live {
  /** `needsKey` asks for an API key, `explain` shows a response by its id. */
  constructor({ needsKey, explain }) {
    this.needsKey = needsKey;
    this.explain = explain;
    this.timer = null;
  }

  /** Refresh from now on. */
  open() {
    this.close();
    this.refresh();
    this.timer = setInterval(() => document.hidden || this.refresh(), EVERY);
  }

  /** Stop refreshing. */
  close() {
    clearInterval(this.timer);
  }

  async refresh() {
    try {
      const [savings, recent, samples] = await Promise.all([getJson("v1/stepgrpo/savings"), getJson("v1/stepgrpo/responses"), metrics()]);
      this.show(savings, recent.data, samples);
      notice("");
    } catch (error) {
      notice(error.message);
      if (error.status === 401) this.needsKey();
    }
  }

  show(savings, recent, samples) {
    tiles(samples);
    savingsTable(savings, samples);
    bars("reasons", [...sumsBy(samples, "stepgrpo_exits_total", "exit_reason")].filter(([, value]) => value > 0).sort((a, b) => b[1] - a[1]));
    bars("steps", ranges(buckets(samples, "stepgrpo_reasoning_steps")));
    this.recentTable(recent);
  }

  recentTable(recent) {
    const rows = recent.map((each) => {
      const block = each.stepgrpo.choices?.[0] ?? each.stepgrpo;
      const more = each.stepgrpo.choices ? ` (1 of ${each.stepgrpo.choices.length})` : "";
      return [
        new Date(each.created * 1000).toLocaleTimeString("en-GB"),
        each.model,
        block.policy + more,
        block.exit_reason ?? block.abstained ?? "unknown",
        block.reasoning_tokens ?? "–",
        saved(block.saved),
        make("button", { type: "button", class: "quiet", "aria-label": `Explain ${each.id}`, onclick: () => this.explain(each.id) }, "Explain"),
      ];
    });
    table("recent", ["time", "model", "policy", "ended by", "reasoning tokens", "tokens saved", ""], rows, "No request yet: start a race.");
  }
}

async function metrics() {
  try {
    return parse(await getText("metrics"));
  } catch (error) {
    if (error.status === 404) return []; // they have a port of their own
    throw error;
  }
}

function notice(text) {
  byId("live-notice").textContent = text;
  byId("live-notice").hidden = !text;
}

function tiles(samples) {
  const predicted = total(samples, "stepgrpo_saved_tokens_total");
  const overspent = total(samples, "stepgrpo_overspent_tokens_total") ?? 0;
  const off = [...sumsBy(samples, "stepgrpo_policy_switched_off", "policy")].filter(([, value]) => value > 0).map(([name]) => name);
  const found = [
    ["requests ended", total(samples, "stepgrpo_requests_total")],
    ["tokens delivered", total(samples, "stepgrpo_completion_tokens_total")],
    ["tokens saved (predicted)", predicted === null ? null : predicted - overspent],
    ["tokens spent on probes", total(samples, "stepgrpo_probe_tokens_total")],
  ];
  byId("tiles").replaceChildren(
    ...found.map(([name, value]) => make("li", {}, make("b", {}, value === null ? "–" : count(value)), make("span", {}, name))),
    ...(off.length ? [make("li", { class: "off" }, make("b", {}, off.join(", ")), make("span", {}, "switched off by the quality gate"))] : []),
  );
}

function savingsTable({ data, level, complaints }, samples) {
  const key = (labels) => JSON.stringify([labels.model_name, labels.policy, labels.method]);
  const overspent = sumsBy(samples, "stepgrpo_overspent_tokens_total", key);
  const predicted = [...sumsBy(samples, "stepgrpo_saved_tokens_total", key)].map(([name, value]) => {
    const [model, policy, method] = JSON.parse(name);
    return [model, policy, method, "", count(value - (overspent.get(name) ?? 0)), "per request only", ""];
  });
  const measured = data.map((row) => [
    row.model_name, row.policy, row.method, count(row.requests_compared),
    ...(row.saved_total ? [count(row.saved_total.value), `${count(row.saved_total.low)} to ${count(row.saved_total.high)}`] : ["too early", ""]),
    row.agreement ? `${Math.round(100 * row.agreement.value)} %` : "",
  ]);
  table("savings", ["model", "policy", "method", "compared", "tokens saved", `${Math.round(100 * level)} % interval`, "same answer"], [...measured, ...predicted], "No exit yet.");
  const how = data.length ? "" : " To measure savings on your own traffic, start the server with --exit-holdout or --exit-pairs.";
  byId("savings-note").textContent = [
    "Before the cost of probes. holdout: compared with requests without exits. measured: compared with continuations. predicted: estimated from the model’s calibration, whose intervals do not add up.",
    how, ...(complaints ?? []).map((each) => ` Warning: ${each}.`),
  ].join("");
}

function saved(estimate) {
  if (!estimate) return "no estimate";
  return estimate.tokens === 0 ? "0" : `${count(estimate.tokens)} (${count(estimate.low)} to ${count(estimate.high)}, ${estimate.method})`;
}

function ranges(found) {
  const used = found.map(([upper, value], place) => [name(place ? found[place - 1][0] : -1, upper), value]);
  const [first, last] = [used.findIndex(([, value]) => value > 0), used.findLastIndex(([, value]) => value > 0)];
  return last < 0 ? [] : used.slice(first, last + 1);
}

function name(lower, upper) {
  if (upper === Infinity) return `more than ${lower}`;
  return upper - lower > 1 ? `${lower + 1} to ${upper}` : `${upper}`;
}

function bars(id, rows) {
  const most = Math.max(...rows.map(([, value]) => value), 1);
  byId(id).replaceChildren(
    rows.length
      ? make("ul", { class: "bars" }, ...rows.map(([label, value]) => make("li", {}, make("span", {}, label), bar(value / most, { kind: "right" }), make("b", {}, count(value)))))
      : make("p", { class: "note" }, "Nothing yet."),
  );
}

function table(id, head, rows, missing) {
  const body = rows.length
    ? rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, cell))))
    : [make("tr", {}, make("td", { colspan: head.length }, missing))];
  const focused = document.activeElement?.getAttribute("aria-label");
  byId(id).replaceChildren(
    make("thead", {}, make("tr", {}, ...head.map((title) => (title ? make("th", { scope: "col" }, title) : make("td", {}))))),
    make("tbody", {}, ...body),
  );
  if (focused) byId(id).querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus(); // as before the refresh
}

