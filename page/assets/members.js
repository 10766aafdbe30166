// The members as cards: weight, health, model, replicas, what was recovered and what went over the wire.
// Knows nothing about requests.

import { byId, bytes, compact, count, h, keyed, setAttribute, setRows, setText, table } from "./dom.js";

const WORDS = { UP: "Up", DOWN: "Down", CONNECTING: "Connecting", REFUSED: "Refused" };

const word = (health) => WORDS[health] ?? "Unknown";

/** The same place, and so the same colour, everywhere. */
export const hue = (index) => index % 6;

export function badge() {
  const text = h("span", { class: "word" });
  return { element: h("p", { class: "badge" }, h("span", { class: "sign", "aria-hidden": "true" }), text), text };
}

export function setBadge({ element, text }, health) {
  setAttribute(element, "data-health", word(health).toLowerCase());
  setText(text, word(health));
}

function fact(name) {
  const value = h("dd");
  return { element: h("div", {}, h("dt", {}, name), value), value };
}

const parts = new WeakMap();

function make(member) {
  const health = badge();
  const reason = h("p", { class: "reason", hidden: true });
  const weight = { bar: h("span", { class: "fill" }), text: h("span", { class: "value" }) };
  const [model, sessions, takeovers, hedges] = ["Model", "Sessions", "Takeovers", "Hedges"].map(fact);
  const replicas = table(`Replicas of ${member.name}`, ["Address", "Device", "Health", "Sessions"]);
  const traffic = table(`Traffic of ${member.name} by plan`, ["Plan", "Sent", "Received", "Tokens", "Rows"]);
  const card = h("li", { class: "member" },
    h("div", { class: "title" }, h("h3", {}, h("span", { class: "dot", "aria-hidden": "true" }), member.name), health.element),
    reason,
    h("div", { class: "weight" }, h("span", { class: "name" }, "Weight"), h("span", { class: "track", "aria-hidden": "true" }, weight.bar), weight.text),
    h("dl", { class: "facts" }, model.element, sessions.element, takeovers.element, hedges.element),
    replicas.element,
    h("details", { class: "traffic" }, h("summary", {}, "Over the wire, by plan"), traffic.element));
  parts.set(card, { health, reason, weight, model, sessions, takeovers, hedges, replicas, traffic });
  return card;
}

function update(card, { member, index, share }) {
  const part = parts.get(card);
  card.dataset.hue = hue(index);
  setBadge(part.health, member.health);
  part.reason.hidden = !member.reason;
  setText(part.reason, member.reason ?? "");
  part.weight.bar.style.inlineSize = share === null ? "0" : `${100 * share}%`;
  const weight = Number((member.weight ?? 0).toFixed(4));
  setText(part.weight.text, share === null ? "answers when the quorum is gone" : `${weight} (${Math.round(100 * share)} %)`);
  const parameters = Number(member.parameters ?? 0);
  const architecture = member.architecture ? ` (${member.architecture})` : "";
  setText(part.model.value, member.model ? `${member.model}${architecture}, ${compact(parameters)} parameters` : "not known yet");
  setText(part.sessions.value, count(member.sessions));
  const { takeovers, recomputed_tokens: again, hedges, hedges_won: won } = member.recovery ?? {};
  setText(part.takeovers.value, `${count(takeovers)} (${count(again)} tokens read again)`);
  setText(part.hedges.value, `${count(hedges)} (${count(won)} won)`);
  setRows(part.replicas.body, (member.replicas ?? []).map((replica) => [
    (replica.address ?? "").replace("http:" + "//", ""),
    replica.device || "not known yet",
    word(replica.health) + (replica.reason && replica.reason !== member.reason ? `: ${replica.reason}` : ""),
    count(replica.sessions),
  ]));
  setRows(part.traffic.body, (member.traffic ?? []).map((plan) => [
    plan.plan, bytes(plan.bytes_sent), bytes(plan.bytes_received), count(plan.tokens), count(plan.output_rows),
  ]));
}

/** Shows who is in the ensemble, and how each of them is. */
export function showMembers(status) {
  const members = status.members ?? [];
  // Who is not up has no share in what is answered now: the others' weights are renormalised.
  const weightOf = (member) => (member.health === "UP" ? member.weight ?? 0 : 0);
  const total = members.reduce((sum, member) => sum + weightOf(member), 0);
  const items = members.map((member, index) => ({ member, index, share: total > 0 ? weightOf(member) / total : 0 }));
  if (status.fallback) {
    const member = { ...status.fallback, name: `${status.fallback.name} (fallback)` };
    items.push({ member, index: items.length, share: null });
  }
  keyed(byId("member-list"), items, ({ member }) => member.name, ({ member }) => make(member), update);
  byId("no-members").hidden = items.length > 0;
}
