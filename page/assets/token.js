// One token under the glass: which rule chose it, who took part, and what every member thought of it and of others in its place.
// Knows nothing about how tokens come.

import { h, percent, ruleName } from "./dom.js";
import { hue } from "./members.js";

/** A token's text so that spaces and line ends are seen. */
export function visible(text) {
  if (text === "") return "(no text yet)";
  return text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replace(/^ | $/g, "␣").replace(/^ +$/, (spaces) => "␣".repeat(spaces.length));
}

/** The same in words, for those who hear it. */
export function spoken(text) {
  if (text === "") return "no text yet";
  const words = { " ": "space", "\n": "new line", "\t": "tab" };
  const heard = [...text].every((letter) => words[letter]) ? [...text].map((letter) => words[letter]).join(", ") : text.trim();
  return { ".": "full stop", ",": "comma", ":": "colon", ";": "semicolon", "!": "exclamation mark", "?": "question mark", "'": "apostrophe", "-": "hyphen" }[heard] ?? heard;
}

const probabilityOf = (logProb) => (logProb === undefined ? undefined : Math.exp(Number(logProb)));

/** What was thought of the token that was chosen, from wherever the message has it. */
export function chosen({ token, participation }) {
  const candidate = (token.candidates ?? []).find((one) => one.id === token.id);
  if (candidate) return candidate;
  const probability = probabilityOf(token.log_prob);
  if (probability === undefined) return null;
  const names = participation?.participants ?? [];
  const of = (name) => probabilityOf((token.members ?? []).find((member) => member.name === name)?.log_prob);
  return { id: token.id ?? 0, probability, member_probabilities: names.map(of) };
}

/** How likely the ensemble held the token: in four steps, 0 the least likely. */
export function certainty(message) {
  const probability = chosen(message)?.probability ?? 0;
  return probability >= 0.5 ? 3 : probability >= 0.2 ? 2 : probability >= 0.05 ? 1 : 0;
}

function bar(name, probability, { index, threshold, strong, whole }) {
  const votes = threshold !== undefined && index !== null && probability > threshold;
  const fill = h("span", { class: "fill" });
  fill.style.inlineSize = `${100 * Math.min(1, (probability ?? 0) / whole)}%`;
  const mark = threshold !== undefined && index !== null ? h("span", { class: "threshold" }) : null;
  if (mark) mark.style.insetInlineStart = `${Math.min(101, 100 * threshold / whole)}%`;
  const value = probability === undefined ? "–" : percent(probability);
  return h("tr", { class: strong ? "fused" : false, "data-hue": index === null ? false : hue(index) },
    h("th", { scope: "row" }, index === null ? null : h("span", { class: "dot", "aria-hidden": "true" }), name),
    h("td", { class: "bar", "aria-hidden": "true" }, h("span", { class: "track" }, fill, mark)),
    h("td", { class: "value" }, votes ? h("span", { class: "vote" }, "✓", h("span", { class: "heard" }, " votes for it, ")) : null, ` ${value}`));
}

function group(candidate, { message, text, isChosen, order, threshold, isVote, whole }) {
  const participants = message.participation?.participants ?? [];
  const votes = candidate.votes === undefined && !isVote ? null : h("span", { class: "chip" }, `${candidate.votes ?? 0} of ${participants.length} votes`);
  const title = h("tr", { class: "candidate" }, h("th", { scope: "rowgroup", colspan: "3" },
    h("q", { class: "text" }, visible(text)), h("span", { class: "heard" }, ` (${spoken(text)})`),
    isChosen ? h("span", { class: "chip chosen" }, "✓ chosen") : null, votes,
    h("span", { class: "id" }, ` id ${candidate.id ?? 0}`)));
  const fused = bar(isVote ? "average" : "ensemble", candidate.probability ?? 0, { index: null, strong: true, whole });
  const members = participants.map((name, place) => {
    const probability = (candidate.member_probabilities ?? [])[place];
    return bar(name, probability, { index: order.indexOf(name), threshold: isVote ? threshold : undefined, whole });
  });
  return h("tbody", { class: isChosen ? "chosen" : false }, title, fused, ...members);
}

/** The probability that a bar of the whole width has: not much more than the largest of them. */
function wholeBar(candidates) {
  const all = candidates.flatMap(({ probability = 0, member_probabilities: members = [] }) => [probability, ...members]);
  const most = Math.max(...all.filter((probability) => probability !== undefined));
  return [0.1, 0.2, 0.5].find((whole) => most <= whole) ?? 1;
}

/** From which token a member that is missing from one is back, or nothing. */
function back(name, index, messages) {
  return messages.findIndex((message, place) => place > index && (message.participation?.rejoined ?? []).includes(name));
}

function attendance(message, index, messages, order) {
  const { participants = [], missing = [], rejoined = [], fallback } = message.participation ?? {};
  const weights = new Map((message.token.members ?? []).map((member) => [member.name, member.weight ?? 0]));
  const present = (name) => h("li", { "data-hue": hue(Math.max(0, order.indexOf(name))) },
    h("span", { class: "dot", "aria-hidden": "true" }), name,
    weights.has(name) ? h("span", { class: "note" }, ` weighs ${percent(weights.get(name))}`) : null,
    rejoined.includes(name) ? h("span", { class: "note" }, ", back from this token on") : null);
  const absent = missing.map(({ name, reason }) => {
    const token = back(name, index, messages);
    const later = token > 0 ? `; back from token ${token + 1} on` : "";
    return h("li", { class: "absent" }, h("b", {}, name), ` ${reason || "no reason was given"}${later}`);
  });
  return [
    h("dt", {}, "Took part"), h("dd", {}, h("ul", { class: "names" }, ...participants.map(present))),
    ...(missing.length > 0 ? [h("dt", {}, "Missing"), h("dd", {}, h("ul", { class: "names" }, ...absent))] : []),
    ...(fallback ? [h("dt", {}, "Fallback"), h("dd", {}, `${fallback.name} answered in the ensemble's place`)] : []),
  ];
}

function expectation({ expectation: expected } = {}) {
  if (!expected?.perplexity || !expected.perplexity_of_all) return [];
  const cost = `perplexity ${expected.perplexity.toFixed(2)} instead of ${expected.perplexity_of_all.toFixed(2)}`;
  return [h("dt", {}, "Expected to cost"), h("dd", {}, cost)];
}

/** Everything about one token; `run` has the messages so far and what was asked. */
export function inspect(run, index) {
  const message = run.messages[index];
  const { token } = message;
  const isVote = run.rule === "RULE_THRESHOLD_VOTE";
  const votes = token.votes ? h("span", {}, `, ${token.votes.count ?? 0} of ${(message.participation?.participants ?? []).length} votes`,
    token.votes.by_weighted_average ? ": nobody's threshold was reached, so the weighted average chose" : "") : null;
  const facts = h("dl", { class: "facts" },
    h("dt", {}, "Chosen by"), h("dd", {}, ruleName(run.rule), isVote ? `, threshold ${run.threshold}` : null, votes),
    ...(isVote ? [] : [h("dt", {}, "Seed"), h("dd", {}, run.seed)]),
    ...attendance(message, index, run.messages, run.order), ...expectation(message.participation));
  const thought = chosen(message);
  const among = [...(token.candidates ?? [])];
  const isListed = among.some((one) => one.id === token.id);
  if (!isListed && thought) among.unshift(thought);
  const whole = wholeBar(among);
  const groups = among.map((candidate) => group(candidate, {
    message, isVote, whole, order: run.order, threshold: run.threshold, isChosen: candidate === thought,
    text: candidate.text ?? message.text ?? "",
  }));
  return [
    h("p", { class: "token-title" }, h("q", { class: "text" }, visible(message.text ?? "")), h("span", { class: "id" }, ` ${index + 1} of ${run.messages.length}`)),
    facts,
    h("table", { class: "bars" }, h("colgroup", {}, h("col", { class: "who" }), h("col"), h("col", { class: "much" })), h("caption", {}, "What every member thought",
      whole < 1 ? h("span", { class: "note" }, ` – a whole bar is ${100 * whole} %`) : null,
      isVote ? h("span", { class: "note" }, " – ✓ votes: above the threshold, the mark in each bar") : null,
      isListed ? null : h("span", { class: "note" }, " – the chosen token is not among the likeliest")),
      h("thead", { class: "heard" }, h("tr", {}, h("th", { scope: "col" }, "Who"), h("td"), h("th", { scope: "col" }, "Probability"))), ...groups),
  ];
}
