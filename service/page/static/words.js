// Exit reasons, probe results, and methods in words.

const REASONS = {
  natural: "The model ended its thinking by itself.",
  confident: "A probed answer was more confident than the threshold.",
  consistent: "The probed answers agreed.",
  sufficient: "The model judged its own reasoning to be sufficient.",
  verified: "A judge found the reasoning sufficient.",
  margin: "Ending the thinking was nearly the most likely next token.",
  entropy: "What would follow the thinking had settled.",
  gave_up: "The confidence of probed answers stayed low for too long.",
  custom: "A policy of this server’s operator ended it.",
  budget: "The budget of reasoning tokens was used up.",
  pattern: "A line of the reasoning matched the pattern.",
  repetition: "The reasoning went in circles.",
  client: "The client asked for the answer.",
  eos_in_thinking: "The model ended its turn inside the thinking.",
  length: "The token limit was reached.",
  none: "There was no thinking to end.",
};

/** Return the sentence for an exit reason. */
export const reasonText = (reason) => REASONS[reason] ?? `Reason: ${reason}.`;

/** Return whether a policy or the client ended the thinking. */
export const isExit = (reason) => !["natural", "none", "length", "eos_in_thinking"].includes(reason);

/** Return what became of a probe. */
export function probeText(probe) {
  switch (probe.result) {
    case "fired":
      return probe.policy === "confidence" ? "confident enough: exit" : "exit";
    case "declined":
      return "not yet: think on";
    case "failed":
      return "no answer: think on";
    case "refused":
      return "not asked: the server is busy";
    default:
      return "not needed any more";
  }
}
