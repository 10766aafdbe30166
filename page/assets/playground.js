// A generation: sent, streamed token by token, stopped; and the tokens, of which one is under the glass.
// Knows nothing about what is shown of a token.

import { generate, token as bearer } from "./api.js";
import { byId, h, percent, ruleName, setAttribute, setText } from "./dom.js";
import { adjust, fieldOf, requestOf, ruleOf, wrong } from "./request.js";
import { certainty, chosen, inspect, spoken } from "./token.js";

const REASONS = { MAX_TOKENS: "the most tokens were reached", STOP_STRING: "a stop string came", END_TOKEN: "the ensemble ended it" };

/** What the text is to those who hear it, once there is some. */
const LIST = {
  role: "listbox", tabindex: "-1", "aria-label": "Generated tokens", "aria-describedby": "output-hint", "aria-orientation": "horizontal",
};

/** The generation that is shown. */
let run = null;
let status = null;

function begin() {
  const options = requestOf(status);
  run?.abort.abort();
  run = {
    abort: new AbortController(), messages: [], selected: null, follows: true, seed: options.sampling?.seed,
    rule: ruleOf(status), threshold: options.fusion?.threshold ?? status?.threshold ?? 0,
    order: (status?.members ?? []).map((member) => member.name), began: performance.now(),
  };
  const list = byId("tokens");
  list.replaceChildren();
  for (const [name, value] of Object.entries(LIST)) setAttribute(list, name, value);
  byId("inspected").replaceChildren(h("p", { class: "hint" }, "The first token is on its way."));
  setText(byId("inspector-title"), "Token");
  setText(byId("summary"), "");
  return options;
}

function running(isRunning) {
  byId("generate").disabled = isRunning;
  byId("stop").disabled = !isRunning;
  setAttribute(byId("tokens"), "aria-busy", String(isRunning));
}

const say = (text) => setText(byId("progress"), text);

function fail(error, field) {
  const place = byId("failure");
  setText(place, error);
  place.hidden = error === "";
  for (const input of document.querySelectorAll("#request [aria-invalid]")) {
    input.removeAttribute("aria-invalid");
    input.removeAttribute("aria-errormessage");
  }
  if (!field) return;
  setAttribute(field, "aria-invalid", "true");
  setAttribute(field, "aria-errormessage", "failure");
  const folded = field.closest("details");
  if (folded) folded.open = true;
  field.focus();
}

async function start() {
  const fault = wrong();
  if (fault) return fail(fault[1], fault[0]);
  fail("");
  const options = begin();
  const mine = run;
  running(true);
  say("Generating …");
  try {
    for await (const message of generate(options, mine.abort.signal)) take(mine, message);
    if (!mine.ended && mine === run) throw new Error("the answer ended in the middle");
  } catch (error) {
    if (mine !== run) return undefined;
    if (error.name === "AbortError") say(`Stopped after ${tokens(mine)}.`);
    else {
      say("");
      fail(`${sentence(error.message)}${error.code ? ` (${error.code})` : ""}`, fieldOf(error.field));
    }
    if (mine.messages.length === 0) clear();
  } finally {
    if (mine === run) running(false);
  }
  return undefined;
}

/** As if nothing had been asked. */
function clear() {
  Object.keys(LIST).forEach((name) => byId("tokens").removeAttribute(name));
  byId("inspected").replaceChildren();
}

const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}`.replace(/[^.!?]$/, "$&.");

const tokens = ({ messages }) => (messages.length === 1 ? "1 token" : `${messages.length} tokens`);

function take(mine, message) {
  if (mine !== run) return;
  if (message.token) {
    message.text ??= "";
    mine.messages.push(message);
    byId("tokens").append(element(message, mine.messages.length - 1));
    follow(mine);
  }
  if (message.end) finish(message);
}

/** Shows the newest token, once a picture, however fast they come. */
function follow(mine) {
  if (!mine.follows || mine.isDue) return;
  mine.isDue = true;
  requestAnimationFrame(() => {
    mine.isDue = false;
    if (mine !== run || !mine.follows) return;
    select(mine.messages.length - 1, false);
    byId("tokens").scrollTop = byId("tokens").scrollHeight;
  });
}

function finish({ text = "", participation = {}, end }) {
  const seconds = (performance.now() - run.began) / 1000;
  if (text) byId("tokens").append(h("span", { class: "rest", role: "presentation" }, text));
  Object.assign(run, { ended: true, seed: end.seed ?? "0" });
  const missing = (participation.missing ?? []).map(({ name, reason, tokens: ranges = [] }) => {
    const from = ranges.map(({ first = 0, end: last }) => (last - first === 1 ? `${first + 1}` : `${first + 1} to ${last}`));
    return ` ${name} is missing from ${from.length > 0 ? `token ${from.join(", ")}` : "all"}: ${reason}.`;
  });
  const seed = run.rule === "RULE_THRESHOLD_VOTE" ? "" : `, seed ${run.seed}`;
  setText(byId("summary"), `${tokens(run)} in ${seconds.toFixed(2)} s by ${ruleName(end.rule)}${seed}; ended because ${REASONS[end.reason] ?? "it was over"}.${missing.join("")}`);
  const names = (participation.missing ?? []).map(({ name }) => name).join(" and ");
  say(`Done: ${tokens(run)}${names ? `, some without ${names}` : ""}.`);
  if (run.messages.length > 0) select(run.follows ? run.messages.length - 1 : run.selected, false);
}

/** A token in the text. */
function element(message, index) {
  const { missing = [], rejoined = [] } = message.participation ?? {};
  const thought = chosen(message);
  const heard = [spoken(message.text), thought ? percent(thought.probability ?? 0) : "", message.token.votes ? `${message.token.votes.count ?? 0} votes` : "",
    missing.length > 0 ? `without ${missing.map(({ name }) => name).join(" and ")}` : "", rejoined.length > 0 ? `${rejoined.join(" and ")} back` : ""];
  const shown = message.text === "" ? "·" : message.text.replaceAll("\n", "⏎\n");
  return h("span", {
    role: "option", id: `token-${index}`, class: message.text.trim() === "" ? "token blank" : "token", tabindex: "-1", "data-index": index,
    "data-certainty": thought ? certainty(message) : false, "data-missing": missing.length > 0, "data-rejoined": rejoined.length > 0,
    "aria-selected": "false", "aria-label": heard.filter((part) => part !== "").join(", "),
  }, shown);
}

/** Puts a token under the glass. */
function select(index, focus) {
  const list = byId("tokens");
  const old = list.querySelector("[aria-selected=true]");
  const now = list.children[index];
  if (old && old !== now) {
    setAttribute(old, "aria-selected", "false");
    old.tabIndex = -1;
  }
  setAttribute(now, "aria-selected", "true");
  now.tabIndex = 0;
  if (focus) now.focus();
  run.selected = index;
  setText(byId("inspector-title"), `Token ${index + 1}`);
  byId("inspected").replaceChildren(...inspect(run, index));
}

/** A choice of the reader's: the newest token is not followed any more. */
function choose(index, focus) {
  if (!run || index === run.selected && !run.follows) return;
  run.follows = false;
  select(index, focus);
}

function indexAt(event) {
  const token = event.target.closest?.("[role=option]");
  return token ? Number(token.dataset.index) : null;
}

/** The token in the line above or below that is nearest. */
function inNextLine(index, down) {
  const list = [...byId("tokens").querySelectorAll("[role=option]")];
  const from = list[index].getClientRects()[0];
  const rects = list.map((token) => token.getClientRects()[0]);
  const beyond = rects.map((rect, place) => [rect, place]).filter(([rect]) => (down ? rect.top > from.top + 4 : rect.top < from.top - 4));
  if (beyond.length === 0) return index;
  const line = down ? Math.min(...beyond.map(([rect]) => rect.top)) : Math.max(...beyond.map(([rect]) => rect.top));
  const distance = ([rect]) => Math.abs(rect.left - from.left);
  return beyond.filter(([rect]) => Math.abs(rect.top - line) < 4).reduce((best, one) => (distance(one) < distance(best) ? one : best))[1];
}

function walk(event) {
  if (!run || run.messages.length === 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  const [last, at] = [run.messages.length - 1, run.selected ?? 0];
  const steps = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: last, PageDown: at + 10, PageUp: at - 10 };
  const next = event.key === "ArrowDown" || event.key === "ArrowUp" ? inNextLine(at, event.key === "ArrowDown") : steps[event.key];
  if (next === undefined) return;
  event.preventDefault();
  choose(Math.max(0, Math.min(last, next)), true);
}

/** What is known of the ensemble; the form follows it. */
export function inform(news) {
  status = news;
  adjust(status);
}

export function open() {
  byId("request").addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  byId("request").addEventListener("change", () => adjust(status));
  byId("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || byId("generate").disabled) return;
    event.preventDefault();
    start();
  });
  byId("stop").addEventListener("click", () => run?.abort.abort());
  byId("token").value = bearer.get();
  byId("token").addEventListener("change", (event) => bearer.set(event.target.value.trim()));
  const list = byId("tokens");
  list.addEventListener("keydown", walk);
  for (const kind of ["pointerover", "focusin", "click"]) {
    list.addEventListener(kind, (event) => {
      // A finger that scrolls over the text chooses nothing.
      if (kind === "pointerover" && event.pointerType !== "mouse") return;
      const index = indexAt(event);
      if (index !== null) choose(index, kind === "click");
    });
  }
  adjust(null);
}
