// One lane: its choices, and the view of one stream as steps, probes, exit, and answer.

import { bar, count, make, seconds } from "./dom.js";
import { isExit, probeText, reasonText } from "./words.js";

export class Lane {
  /** `side` is "left" or "right"; `actions` are what its buttons call. */
  constructor(side, actions) {
    this.side = side;
    this.model = make("select", { id: `${side}-model` });
    this.policy = make("select", { id: `${side}-policy` });
    this.title = make("h2", { id: `${side}-title` });
    this.now = make("button", { type: "button", class: "quiet", disabled: true, onclick: () => actions.answerNow(this) }, "Answer now");
    this.why = make("button", { type: "button", class: "quiet", hidden: true, onclick: () => actions.explain(this.id) }, "Explain");
    this.figures = Object.fromEntries(["tokens", "time", "steps", "probes"].map((name) => [name, make("dd", { id: `${side}-${name}` }, "–")]));
    this.meter = make("div", { class: "meter" });
    this.steps = make("ol", { class: "steps" });
    this.track = make("div", { class: "run", tabindex: 0, role: "region", "aria-label": `Steps of the ${side} lane` }, this.steps);
    this.element = make(
      "section",
      { class: `lane ${side}`, "aria-labelledby": `${side}-title` },
      make("header", {}, this.title,
        make("div", { class: "choices" },
          make("label", {}, make("span", {}, "Model"), this.model),
          make("label", {}, make("span", {}, "Exit policy"), this.policy))),
      make("dl", { class: "figures" }, ...Object.entries(this.figures).map(([name, value]) => make("div", {}, make("dt", {}, name), value))),
      this.meter,
      this.track,
      make("footer", {}, this.now, this.why),
    );
    for (const select of [this.model, this.policy]) select.addEventListener("change", () => { this.name(); actions.changed(); });
    this.clear();
  }

  /** Fill the choices. */
  offer(models, policies, model, policy) {
    fill(this.model, models, model);
    fill(this.policy, policies, policy, (name) => (name === "none" ? "none: think to the end" : name));
    this.name();
  }

  name() {
    const policy = this.policy.value;
    this.title.textContent = policy === "none" ? `${this.model.value}, to the end` : `${this.model.value}, with exits`;
  }

  /** Forget the last run. */
  clear() {
    this.id = null;
    this.tokens = 0;
    this.elapsed = 0;
    this.block = null;
    this.usage = null;
    this.content = "";
    this.failed = false;
    this.threshold = null;
    this.card = null;
    this.cards = [];
    this.answer = null;
    this.ended = false;
    this.probes = 0;
    this.steps.replaceChildren(make("li", { class: "empty" }, ...legend(this.side)));
    for (const each of Object.values(this.figures)) each.textContent = "–";
    this.meter.replaceChildren();
    this.now.disabled = true;
    this.why.hidden = true;
    this.element.classList.remove("running");
  }

  /** Show that the request was sent. */
  start(threshold) {
    this.clear();
    this.threshold = threshold;
    this.steps.replaceChildren();
    this.element.classList.add("running");
  }

  /** Show a chunk of the stream. */
  take(chunk) {
    this.id = chunk.id ?? this.id;
    this.now.disabled = this.ended || this.id === null;
    const delta = chunk.choices?.[0]?.delta ?? {};
    if (delta.reasoning) this.think(delta.reasoning);
    if (delta.content) this.say(delta.content);
    for (const event of chunk.stepgrpo_events ?? []) this.happen(event);
    if (chunk.usage) {
      this.usage = chunk.usage;
      this.tokens = chunk.usage.completion_tokens;
    }
    if (chunk.stepgrpo) this.finish(chunk.stepgrpo);
  }

  think(text) {
    if (this.ended && !text.trim()) return; // white space of the closing
    this.card ??= this.open(null);
    this.card.text.append(this.card.text.textContent ? text : text.trimStart());
    this.follow();
  }

  open(marker) {
    const text = make("p", { class: "text" });
    if (marker !== null) text.append(make("mark", {}, marker));
    const probes = make("ul", { class: "probes" });
    const toggle = make("button", { type: "button", "aria-expanded": "true", onclick: () => fold(element, toggle) }, `Step ${this.cards.length + 1}`);
    const element = make("li", { class: "step" }, make("h3", {}, toggle), text, probes);
    if (this.card) fold(this.card.element, this.card.toggle, true);
    this.steps.append(element);
    const card = { text, probes, element, toggle };
    this.cards.push(card);
    return card;
  }

  happen(event) {
    if (event.event === "step") this.split(event.marker);
    else if (event.event === "probe") this.probe(event);
    else if (event.event === "cut" || event.event === "thinking_end") this.end(event.reason);
  }

  /** Begin a new card at the marker, which is in the text of the current one. */
  split(marker) {
    const text = this.card?.text.textContent ?? "";
    const own = this.card?.text.querySelector("mark")?.textContent.length ?? 0;
    const at = text.indexOf(marker, own);
    if (at < 0) return;
    const before = this.card.text;
    const kept = text.slice(own, at).trimEnd();
    const mark = before.querySelector("mark");
    before.replaceChildren(...(mark ? [mark] : []), kept);
    this.card = this.open(marker);
    this.card.text.append(text.slice(at + marker.length));
  }

  /** Show a probe at the end of the step in which it was asked. */
  probe(event) {
    this.probes += 1;
    const card = this.cards[(event.steps ?? this.cards.length) - 1] ?? this.card;
    if (!card) return;
    const known = event.confidence !== undefined && event.confidence !== null;
    const limit = this.threshold === null ? "" : ` of the ${this.threshold} that an exit needs`;
    const label = known ? `Probe ${event.probe + 1}: confidence ${event.confidence.toFixed(2)}${limit}; ${probeText(event)}` : `Probe ${event.probe + 1}: ${probeText(event)}`;
    card.probes.append(
      make("li", { class: `probe ${event.result}` },
        make("span", { class: "hidden" }, label),
        make("span", { class: "line", "aria-hidden": "true" },
          make("span", {}, "Probe"),
          known ? bar(event.confidence, { tick: this.threshold, kind: event.result }) : null,
          known ? make("b", {}, event.confidence.toFixed(2)) : null,
          make("span", { class: "verdict" }, probeText(event)))),
    );
    this.follow();
  }

  end(reason) {
    if (this.ended) return;
    this.ended = true;
    this.now.disabled = true;
    const exits = isExit(reason);
    this.trim();
    this.steps.append(
      make("li", { class: exits ? "end exit" : "end" },
        make("strong", {}, exits ? `Exit: ${reason}` : `End: ${reason}`), " ", make("span", {}, reasonText(reason))),
    );
    this.follow();
  }

  trim() {
    const last = this.card?.text.lastChild;
    if (last?.nodeType === Node.TEXT_NODE) {
      this.card.text.normalize();
      this.card.text.lastChild.textContent = this.card.text.lastChild.textContent.trimEnd();
    }
  }

  say(text) {
    this.content += text;
    if (!this.answer && !this.content.trim()) return;
    if (!this.answer) {
      this.answer = make("p", { class: "text" });
      this.steps.append(make("li", { class: "answer" }, make("h3", {}, "Answer"), this.answer));
    }
    this.answer.textContent = this.content.trim();
    this.follow();
  }

  follow() {
    this.track.scrollTop = this.track.scrollHeight;
  }

  /** Show what the server reports at the end. */
  finish(block) {
    this.block = block;
    if (block.exit_reason) this.end(block.exit_reason);
    this.why.hidden = false;
  }

  /** Show a failure in words. */
  fail(message) {
    this.failed = true;
    this.steps.append(make("li", { class: "failure", role: "alert" }, message));
    this.follow();
  }

  /** The stream has ended. */
  stop() {
    this.now.disabled = true;
    this.element.classList.remove("running");
  }

  /** Refresh the figures; `most` is the larger number of tokens of both lanes. */
  refresh(most) {
    this.figures.tokens.textContent = count(this.tokens);
    this.figures.time.textContent = seconds(this.elapsed);
    this.figures.steps.textContent = count(this.block?.steps ?? this.cards.length);
    this.figures.probes.textContent = count(this.block?.probes ?? this.probes);
    this.meter.replaceChildren(bar(most ? this.tokens / most : 0, { kind: this.side }));
  }

  /** The number of tokens that probes generated. */
  get probeTokens() {
    return this.block?.probe_tokens ?? 0;
  }

  /** What the lane runs, in words. */
  get runs() {
    return `${this.model.value} under policy ${this.policy.value}`;
  }
}

/** Fold a step to its first line, or unfold it. */
function fold(element, toggle, folded = !element.classList.contains("folded")) {
  element.classList.toggle("folded", folded);
  toggle.setAttribute("aria-expanded", String(!folded));
}

function legend(side) {
  if (side === "left") return [make("p", {}, "All of the thinking appears here. ", make("mark", {}, "Wait"), " begins a new step.")];
  return [
    make("p", {}, "The same thinking appears here, until a probe is confident."),
    make("p", { class: "key-line" }, bar(0.4, { tick: 0.95, kind: "declined" }), "not yet: the model thinks on"),
    make("p", { class: "key-line" }, bar(0.98, { tick: 0.95, kind: "fired" }), "above the threshold: exit"),
  ];
}

function fill(select, names, chosen, text = (name) => name) {
  select.replaceChildren(...names.map((name) => make("option", { value: name, selected: name === chosen }, text(name))));
}

