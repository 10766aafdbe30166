// Asks the coordinator how the ensemble is, again and again, and has everything show it.

import { status as ask } from "./api.js";
import { Chart } from "./charts.js";
import { byId, compact, count, h, keyed, milliseconds, ruleName, setAttribute, setText } from "./dom.js";
import { showMembers } from "./members.js";
import { inform, open } from "./playground.js";

/** Milliseconds between two questions, also where nobody looks: then charts have no gaps. */
const EVERY = 1000;

const rate = (value) => (value >= 100 ? compact(Math.round(value)) : String(Number(value.toFixed(1))));

const charts = {
  tokens: new Chart({
    id: "chart-tokens", title: "Throughput", unit: "tokens a second", format: rate,
    series: [{ name: "generated" }, { name: "scored", dashed: true }],
  }),
  first: new Chart({
    id: "chart-first", title: "Until the first token", unit: "ms, of the last minute's generations", format: milliseconds,
    series: [{ name: "half of them within" }, { name: "95 % within", dashed: true }],
  }),
  next: new Chart({
    id: "chart-next", title: "Between two tokens", unit: "ms, of the last minute's tokens", format: milliseconds,
    series: [{ name: "half of them within" }, { name: "95 % within", dashed: true }],
  }),
};

let before = null;

function state({ word, health, sentence }) {
  setAttribute(byId("state"), "data-health", health);
  setText(byId("state-word"), word);
  setText(byId("state-sentence"), sentence);
  document.title = health === "up" ? "Chorus" : `${word} – Chorus`;
}

function stateOf({ serving, members = [], quorum = {} }) {
  const up = members.filter((member) => member.health === "UP").length;
  const all = members.length === 1 ? "1 member" : `${members.length} members`;
  const sentence = `${up} of ${all} up; at least ${quorum.members ?? 1} of them ${quorum.weight ? `with ${Math.round(100 * quorum.weight)} % of the weight ` : ""}have to be.`;
  if (!serving) return { word: "Not serving", health: "down", sentence };
  return up < members.length ? { word: "Serving, degraded", health: "degraded", sentence } : { word: "Serving", health: "up", sentence };
}

function pairs(list, items) {
  keyed(list, items, ([name]) => name, ([name]) => h("div", {}, h("dt", {}, name), h("dd")), (element, [, value]) => setText(element.lastElementChild, value));
}

const latency = (quantiles, name) => (Number(quantiles?.count ?? 0) > 0 ? quantiles[name] ?? 0 : null);

function hits(cache) {
  const [cached, read] = [Number(cache?.cached_tokens ?? 0), Number(cache?.read_tokens ?? 0)];
  return cached + read > 0 ? `${Math.round((100 * cached) / (cached + read))} %` : "–";
}

function measure(status) {
  const now = { time: performance.now() / 1000, generated: Number(status.activity?.generated_tokens ?? 0), scored: Number(status.activity?.scored_tokens ?? 0) };
  const seconds = before ? now.time - before.time : 0;
  // A coordinator that was started again counts anew.
  const perSecond = (name) => (before && now[name] >= before[name] ? (now[name] - before[name]) / seconds : null);
  const rates = ["generated", "scored"].map(perSecond);
  before = now;
  const { first_token: first, next_token: next } = status.activity ?? {};
  charts.tokens.add(now.time, rates);
  charts.first.add(now.time, [latency(first, "p50_ms"), latency(first, "p95_ms")]);
  charts.next.add(now.time, [latency(next, "p50_ms"), latency(next, "p95_ms")]);
  const shown = (value) => (value === null ? "–" : milliseconds(value));
  pairs(byId("figures"), [
    ["Tokens generated", count(now.generated)],
    ["Tokens scored", count(now.scored)],
    ["Prompts from cache", hits(status.prefix_cache)],
    ["In progress", `${count(status.sessions)} of ${count(status.limits?.max_sessions)}`],
    ["Waiting", count(status.waiting)],
    ["First token, p50", shown(latency(first, "p50_ms"))],
    ["Next token, p50", shown(latency(next, "p50_ms"))],
  ]);
}

function gap() {
  before = null;
  for (const chart of Object.values(charts)) chart.add(performance.now() / 1000, chart.series.map(() => null));
}

function show(status) {
  state(stateOf(status));
  showMembers(status);
  measure(status);
  inform(status);
  const { learned } = status;
  const weights = !learned ? "as configured" : learned.in_force ? "learned for every set of members" : `as configured: ${learned.reason}`;
  pairs(byId("facts"), [
    ["Rule", `${ruleName(status.rule)}, threshold ${status.threshold ?? 0}`],
    ["Weights", weights],
    ["Vocabulary", `${count(status.vocabulary_size)} tokens`],
    ["Version", status.version ?? "unknown"],
    ["Configuration", `revision ${status.revision ?? 0}`],
  ]);
}

async function once() {
  try {
    show(await ask());
  } catch (error) {
    gap();
    const refused = error.code === "UNAUTHENTICATED" || error.code === "PERMISSION_DENIED";
    if (refused) state({ word: "No access", health: "refused", sentence: `${error.message}. A token can be given in the playground, under “Access”.` });
    else state({ word: "Unreachable", health: "down", sentence: `The coordinator does not answer (${error.message}); trying again.` });
  }
}

async function forever() {
  for (;;) {
    const began = performance.now();
    await once();
    await new Promise((wake) => setTimeout(wake, Math.max(100, EVERY - (performance.now() - began))));
  }
}

byId("chart-list").append(...Object.values(charts).map((chart) => chart.element));
open();
forever();
