// The form, and the GenerateRequest that it is. Knows nothing about answers.

import { byId, h, keyed, setAttribute } from "./dom.js";
import { hue } from "./members.js";

/** Tokens that come in the place of each: what a panel has room for. */
const CANDIDATES = 5;

const HINTS = {
  RULE_WEIGHTED_AVERAGE: "The mixture of what the members hold likely.",
  RULE_THRESHOLD_VOTE: "What most members hold likelier than the threshold.",
  RULE_LOG_LINEAR: "The product of the members, each to the power of its weight.",
  RULE_LOGIT_MEAN: "The softmax of the mean of the logits.",
  RULE_LOGIT_MAX: "The softmax of the largest logit of any member.",
};

const number = (id) => (byId(id).value.trim() === "" ? undefined : Number(byId(id).value));

/** As the server would choose it, so that it is known even where a generation is stopped. */
const anySeed = () => {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  return String((high >>> 11) * 2 ** 32 + low);
};

const text = (id) => byId(id).value.trim() || undefined;

/** Without what is undefined, and undefined where nothing is left. */
function given(object) {
  const entries = Object.entries(object).filter(([, value]) => value !== undefined && value !== false);
  return entries.length > 0 ? Object.fromEntries(entries) : undefined;
}

/** The rule that will apply. */
export const ruleOf = (status) => byId("rule").value || status?.rule || "RULE_WEIGHTED_AVERAGE";

/** The field that a request's path is about, or nothing. */
export function fieldOf(path) {
  const name = (path ?? "").split(".").find((part) => byId(part)?.form?.id === "request");
  if (name) return byId(name);
  if (/weights|members/.test(path ?? "")) return byId("choices").querySelector("input");
  return /^prompt/.test(path ?? "") ? byId("prompt") : null;
}

/** What the form says, in the names of chorus.v1. */
export function requestOf(status) {
  const rule = ruleOf(status);
  const isVote = rule === "RULE_THRESHOLD_VOTE";
  const choices = [...byId("choices").children];
  const chosen = choices.filter((choice) => choice.querySelector("[type=checkbox]").checked);
  const weights = chosen.map((choice) => [choice.dataset.key, choice.querySelector("[type=number]").value.trim()]);
  const given_weights = weights.filter(([, weight]) => weight !== "").map(([name, weight]) => [name, Number(weight)]);
  const sampling = isVote ? undefined : given({
    temperature: number("temperature"), top_k: number("top_k"), top_p: number("top_p"),
    repetition_penalty: number("repetition_penalty"), seed: text("seed") ?? anySeed(),
  });
  const adaptive = rule === "RULE_WEIGHTED_AVERAGE" && byId("adaptive").checked;
  const fusion = given({
    rule: byId("rule").value || undefined,
    threshold: isVote ? number("threshold") : undefined,
    weights: given_weights.length > 0 ? Object.fromEntries(given_weights) : undefined,
    members: chosen.length < choices.length ? chosen.map((choice) => choice.dataset.key) : undefined,
    adaptive,
    forgetting: adaptive ? number("forgetting") : undefined,
    allow_degraded: byId("require_all").checked ? 0 : undefined,
  });
  if (fusion?.allow_degraded === 0) fusion.allow_degraded = false;
  return given({
    prompt: { text: byId("prompt").value }, max_tokens: number("max_tokens"),
    sampling, fusion, log_probs: !isVote, candidates: CANDIDATES,
  });
}

/** What keeps a request from being sent: a field and a sentence. */
export function wrong() {
  if (byId("prompt").value === "") return [byId("prompt"), "The prompt is empty."];
  const choices = [...byId("choices").querySelectorAll("[type=checkbox]")];
  if (choices.length > 0 && !choices.some((choice) => choice.checked)) return [choices[0], "Nobody is left to answer."];
  const invalid = byId("request").querySelector("input:invalid");
  if (!invalid || invalid.disabled) return null;
  const label = invalid.labels[0]?.textContent.trim() ?? invalid.name;
  return [invalid, `${label}: ${invalid.validationMessage || "it is not a number that is allowed"}`];
}

function choice({ name }) {
  const [box, weight] = [`member-${name}`, `weight-${name}`];
  return h("div", { class: "choice" },
    h("label", { class: "check", for: box }, h("input", { type: "checkbox", id: box, checked: true }), h("span", { class: "dot", "aria-hidden": "true" }), name),
    h("label", { class: "heard", for: weight }, `Weight of ${name}`),
    h("input", { type: "number", id: weight, min: "0", step: "any", inputmode: "decimal", placeholder: "weight", "aria-describedby": "weights-hint" }));
}

/** Shows the fields that the rule has, for the members that there are. */
export function adjust(status) {
  const rule = ruleOf(status);
  for (const element of document.querySelectorAll("[data-for]")) {
    const wanted = { sampling: rule !== "RULE_THRESHOLD_VOTE", vote: rule === "RULE_THRESHOLD_VOTE", adaptive: rule === "RULE_WEIGHTED_AVERAGE" };
    element.hidden = !wanted[element.dataset.for];
    for (const input of element.querySelectorAll("input")) input.disabled = element.hidden;
  }
  byId("forgetting").disabled = !byId("adaptive").checked || rule !== "RULE_WEIGHTED_AVERAGE";
  byId("rule-hint").textContent = HINTS[rule] ?? "";
  if (!status) return;
  setAttribute(byId("max_tokens"), "max", status.limits?.max_generated_tokens ?? null);
  setAttribute(byId("threshold"), "placeholder", status.threshold ?? 0);
  keyed(byId("choices"), status.members ?? [], ({ name }) => name, choice, (element, { name }) => {
    element.dataset.hue = hue(status.members.findIndex((member) => member.name === name));
    const usesWeights = !["RULE_LOGIT_MEAN", "RULE_LOGIT_MAX"].includes(rule);
    element.querySelector("[type=number]").disabled = !usesWeights || !element.querySelector("[type=checkbox]").checked;
  });
}
