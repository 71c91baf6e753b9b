"use strict";
// Every text on this page comes from outside: it is shown as text and never read as markup, and characters that would reorder
// or hide what stands around them are written out.
const byId = (id) => document.getElementById(id);
const HARMFUL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;
const inert = (value) => String(value).replace(HARMFUL, (harmful) =>
  Array.from(harmful, (one) => `\\u{${one.codePointAt(0).toString(16)}}`).join(""));

function make(name, text, traits = {}) {
  const node = document.createElement(name);
  if (text !== undefined && text !== null) node.textContent = inert(text);
  for (const [trait, value] of Object.entries(traits)) node.setAttribute(trait, value);
  return node;
}
const cell = (text, kind) => make("td", text, kind ? { class: kind } : {});
const row = (...cells) => { const line = make("tr"); line.append(...cells); return line; };
const head = (text) => make("th", text, { scope: "row" });

const plain = new Intl.NumberFormat("en");
const count = (value) => (typeof value === "number" ? plain.format(value) : "–");
const list = (value) => (Array.isArray(value) ? value : []);

function ms(value) {
  if (typeof value !== "number") return "–";
  if (value < 10) return `${value.toFixed(1)} ms`;
  if (value < 1000) return `${value.toFixed(0)} ms`;
  if (value < 60000) return `${(value / 1000).toFixed(1)} s`;
  return age(value);
}
function age(span) {
  const seconds = Math.max(0, Math.round(span / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}
const clock = (at) => (typeof at === "number" ? new Date(at).toISOString().slice(11, 19) : "–");

// Drawn again only when it changed, so that a selection and a reader's place stay.
const drawn = new Map();
function draw(id, data, fill) {
  const text = JSON.stringify(data);
  if (drawn.get(id) === text) return;
  drawn.set(id, text);
  byId(id).replaceChildren(...fill());
}

const WORDS = {
  flowing: "Flowing", idle: "Nothing to do", held: "Held", stuck: "Stuck", starting: "Starting", draining: "Draining",
  silent: "No answer",
};
const TONES = { delivered: "good", superseded: "good", dead_lettered: "bad", shadowed: "warn" };

function banner(state, why, totals) {
  byId("banner").dataset.state = Object.hasOwn(WORDS, state) ? state : "held";
  const word = Object.hasOwn(WORDS, state) ? WORDS[state] : inert(state);
  if (byId("state").textContent !== word) byId("state").textContent = word;
  document.title = `${word} · crm-event-processors`;
  draw("why", why, () => why.map((one) => make("li", one)));
  draw("totals", totals, () => totals.map(([name, value]) => {
    const pair = make("div");
    pair.append(make("dt", name), make("dd", value));
    return pair;
  }));
}

// What was seen since the page was opened: the worker keeps no history.
const POINTS = 120;
const history = new Map();
function remember(key, value) {
  const points = history.get(key) ?? [];
  points.push(value);
  if (points.length > POINTS) points.shift();
  history.set(key, points);
  return points;
}
const SVG = "http://www.w3.org/2000/svg";
function spark(what, points) {
  const most = Math.max(...points, 1);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", `0 0 ${POINTS - 1} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", inert(`${what}: now ${plain.format(points.at(-1))}, at most ${plain.format(Math.max(...points))}`));
  const line = document.createElementNS(SVG, "polyline");
  const from = POINTS - points.length;
  line.setAttribute("points", points.map((value, at) => `${from + at},${(19 - (18 * value) / most).toFixed(1)}`).join(" "));
  svg.append(line);
  const place = make("td");
  place.append(svg);
  return place;
}

const OUTCOMES = ["delivered", "superseded", "duplicate", "ignored", "dead_lettered", "shadowed", "control"];
const rateOf = (one) => Object.values(one.rates ?? {}).reduce((sum, rate) => sum + rate, 0);

function consumers(told) {
  const rows = list(told.consumers).map((one) => {
    const rate = rateOf(one);
    const lags = remember(`lag ${one.name}`, one.lag ?? 0);
    const rates = remember(`rate ${one.name}`, rate);
    const outcomes = OUTCOMES.filter((outcome) => one.outcomes?.[outcome] > 0)
      .map((outcome) => `${outcome} ${count(one.outcomes[outcome])}`).join(", ");
    const error = one.last_error;
    const waits = one.standing_still ?? one.halted;
    const latency = one.latency_ms ?? {};
    const name = head(one.name);
    if (waits) name.append(" ", make("span", one.halted ? "halted" : "stands still", { class: "word", "data-tone": "bad" }));
    return row(
      name, cell(count(one.lag), "number"), spark(`Lag of ${one.name}`, lags),
      cell(rate.toFixed(1), "number"), spark(`Records a second of ${one.name}`, rates),
      cell(count(one.in_flight), "number"), cell(outcomes, "long"),
      cell(ms(latency.p50), "number"), cell(ms(latency.p95), "number"), cell(ms(latency.p99), "number"),
      cell(error ? `${age(told.now_ms - error.at_ms)} ago, ${error.target}: ${error.detail}` : "–", "long"),
    );
  });
  byId("consumer-rows").replaceChildren(...rows);
}

const MOST_PARTITIONS = 200;
function partitions(told) {
  const all = list(told.partitions);
  const isWaiting = (one) => one.outstanding > 0 || one.paused || list(one.held_by).length > 0;
  const shown = [...all.filter(isWaiting), ...all.filter((one) => !isWaiting(one))].slice(0, MOST_PARTITIONS);
  const halted = list(told.halted);
  draw("partition-rows", [halted, shown], () => [
    ...halted.map((one) => row(
      head(`${one.topic}/${one.partition}`), cell(count(one.committed), "number"), cell("–", "number"), cell("–", "number"),
      cell("–", "number"), cell("–"), cell(one.reason, "long"), tone("halted", "bad"),
    )),
    ...shown.map((one) => {
      const marks = Object.entries({ ...one.watermarks, ...one.absent })
        .map(([name, mark]) => `${name} ${count(mark)}${one.position > mark ? ` (−${count(one.position - mark)})` : ""}`);
      const state = one.paused ? tone("paused", "warn") : Object.keys(one.absent ?? {}).length ? tone("waits for the absent", "warn") : cell("");
      return row(
        head(`${one.topic}/${one.partition}`), cell(count(one.committed), "number"), cell(count(one.position), "number"),
        cell(count(one.outstanding), "number"), cell(count(one.skew), "number"), cell(marks.join(", "), "long"),
        cell(list(one.held_by).join(", ")), state,
      );
    }),
  ]);
  const left = all.length - shown.length;
  byId("partition-note").textContent = all.length + halted.length === 0 ? "None is assigned to this worker."
    : left > 0 ? `${left} more, in which nothing waits.` : "";
}
function tone(text, kind) {
  const place = make("td");
  place.append(make("span", text, { class: "word", "data-tone": kind }));
  return place;
}

const SEVERITIES = { failed: ["Failed", "bad"], warning: ["Warning", "warn"], not_verifiable: ["Not verifiable", "warn"] };
function source(told) {
  const look = told.source;
  const findings = list(look?.findings);
  const open = Object.keys(SEVERITIES).flatMap((severity) => findings.filter((one) => one.severity === severity));
  const well = findings.length - open.length;
  byId("source-note").textContent = look
    ? `Looked at ${age(told.now_ms - look.looked_ms)} ago: ${well} of ${findings.length} are well.`
    : "This worker does not look at connector, slot and group (SOURCE_POLL_SECS). The command check does.";
  draw("findings", open, () => open.map((one) => {
    const item = make("li");
    const [word, kind] = SEVERITIES[one.severity];
    const first = make("p");
    first.append(make("span", word, { class: "word", "data-tone": kind }), " ", make("code", one.id), " ");
    first.append(document.createTextNode(inert(one.what)));
    item.append(first);
    if (one.evidence) item.append(make("p", `Seen: ${one.evidence}`, { class: "quiet" }));
    if (one.fix) item.append(make("pre", one.fix, { tabindex: "0", "aria-label": `What mends ${one.id}` }));
    return item;
  }));
}

function choices(id, values) {
  const select = byId(id);
  const known = new Set(Array.from(select.options, (option) => option.value));
  for (const value of values) if (!known.has(value)) select.append(make("option", value, { value }));
}
function recent(told) {
  const all = list(told.recent);
  choices("recent-consumer", new Set(all.map((one) => String(one.consumer))));
  choices("recent-outcome", new Set(all.map((one) => String(one.outcome))));
  const [consumer, outcome] = [byId("recent-consumer").value, byId("recent-outcome").value];
  const text = byId("recent-text").value.trim().toLowerCase();
  const holds = (one) => [one.row, one.reason, one.table, one.topic].some((part) => String(part ?? "").toLowerCase().includes(text));
  const shown = all.filter((one) => (!consumer || one.consumer === consumer) && (!outcome || one.outcome === outcome) && (!text || holds(one)));
  byId("recent-count").textContent = `${shown.length} of ${all.length}`;
  draw("recent-rows", shown, () => shown.map((one) => row(
    cell(clock(one.at_ms), "mono"), cell(one.consumer), cell(one.table ?? "–"), cell(one.row ?? "–", "mono"),
    tone(one.outcome, TONES[one.outcome] ?? "none"), cell(one.reason ?? "–"),
    cell(`${one.topic}/${one.partition}/${one.offset}`, "mono"),
  )));
}

function settings(told) {
  const known = typeof told.config === "string";
  byId("config-note").textContent = known
    ? "As the worker understands them, secrets redacted."
    : "The worker does not tell them: it does with CONSOLE=1.";
  byId("config-text").hidden = !known;
  if (known) draw("config-text", told.config, () => [document.createTextNode(inert(told.config))]);
}

function lettersNote(told) {
  byId("letters-filter").hidden = !told.has_letters;
  const written = list(told.recent).filter((one) => one.outcome === "dead_lettered").length;
  byId("letters-note").textContent = told.has_letters ? ""
    : `${written} among the recent records. To read them: crm-event-processors console, with KAFKA_BOOTSTRAP_SERVERS, or dlq list.`;
}

let last = null;
let lastAt = 0;
let paused = false;
function show(told) {
  byId("version").textContent = inert(told.version ?? "");
  const sum = (of) => list(told.consumers).reduce((all, one) => all + (of(one) ?? 0), 0);
  banner(told.flow?.state ?? (told.ready ? "flowing" : "held"), list(told.flow?.why ?? told.problems), [
    ["records a second", sum(rateOf).toFixed(1)],
    ["behind", count(sum((one) => one.lag))],
    ["in flight", count(sum((one) => one.in_flight))],
    ["dead letters since the start", count(sum((one) => one.outcomes?.dead_lettered))],
    ["partitions", count(list(told.partitions).length + list(told.halted).length)],
  ]);
  consumers(told);
  partitions(told);
  source(told);
  recent(told);
  lettersNote(told);
  settings(told);
}

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", credentials: "omit", redirect: "error", signal: AbortSignal.timeout(30000) });
  const told = await answer.json().catch(() => ({ error: `${answer.status}` }));
  if (!answer.ok) throw new Error(told.error ?? `${answer.status}`);
  return told;
}

async function poll() {
  if (!paused && document.visibilityState === "visible") {
    try {
      last = await ask("/console/data.json");
      lastAt = Date.now();
      if (!paused) show(last);
    } catch (error) {
      banner("silent", [error.message, last ? "What is below is what was said last." : "Nothing is known yet."], []);
    }
  }
  fresh();
  setTimeout(poll, 1000);
}
function fresh() {
  const said = lastAt ? `as of ${age(Date.now() - lastAt)} ago` : "";
  byId("freshness").textContent = paused ? `${said}, paused` : said;
}

// The theme: the system's, unless somebody chose one.
const THEMES = ["system", "light", "dark"];
const dark = window.matchMedia("(prefers-color-scheme: dark)");
let theme = "system";
try { theme = localStorage.getItem("theme") ?? "system"; } catch { /* Not kept, then. */ }
function paint() {
  if (!THEMES.includes(theme)) theme = "system";
  document.documentElement.dataset.theme = theme === "system" ? (dark.matches ? "dark" : "light") : theme;
  byId("theme").textContent = `Theme: ${theme}`;
}
dark.addEventListener("change", paint);
byId("theme").addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  try { localStorage.setItem("theme", theme); } catch { /* Not kept, then. */ }
  paint();
});
byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Go on" : "Pause";
  fresh();
});
byId("recent-filter").addEventListener("input", () => last && recent(last));
byId("recent-filter").addEventListener("submit", (event) => event.preventDefault());

byId("letters-filter").addEventListener("submit", async (event) => {
  event.preventDefault();
  const wanted = new URLSearchParams();
  for (const name of ["queue", "reason", "topic"]) {
    const value = byId(`letters-${name}`).value.trim();
    if (value) wanted.set(name, value);
  }
  byId("letters-count").textContent = "reading …";
  try {
    const told = await ask(`/console/letters.json?${wanted}`);
    const letters = list(told.letters);
    const left = told.open - letters.length;
    byId("letters-count").textContent = `${count(told.open)} open${left > 0 ? `, the oldest ${letters.length} are shown` : ""}`;
    byId("letters-list").hidden = letters.length === 0;
    byId("letter-rows").replaceChildren(...letters.map((one) => {
      const place = make("th", undefined, { scope: "row" });
      const open = make("button", one.place, { type: "button", class: "plain" });
      open.addEventListener("click", () => letter(one.place));
      place.append(open);
      return row(
        place, cell(new Date(one.written_at_ms).toISOString(), "mono"), cell(one.reason), cell(`${one.topic}/${one.partition}/${one.offset}`, "mono"),
        cell(one.detail, "long"),
      );
    }));
  } catch (error) {
    byId("letters-count").textContent = inert(error.message);
  }
});

async function letter(place) {
  try {
    const told = await ask(`/console/letter.json?place=${encodeURIComponent(place)}`);
    byId("letter-title").textContent = inert(`Letter ${place}`);
    const of = told.provenance ?? {};
    const facts = [
      ["Queue", of.consumer], ["Reason", of.reason], ["Detail", of.detail], ["Record", `${of.topic}/${of.partition}/${of.offset}`],
      ["Written", new Date(of.written_at_ms).toISOString()], ["By version", of.version],
      ["Became", told.mark ? `${told.mark.fate}, by ${told.mark.by}: ${told.mark.because}` : "open"],
      ...list(told.headers).map(([name, value]) => [`Header ${name}`, value]),
    ];
    byId("letter-facts").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", name), make("dd", value ?? "–")]));
    byId("letter-explained").textContent = inert([told.note, told.explained].filter(Boolean).join("\n\n"));
    byId("letter-value").textContent = inert(told.value ?? "none");
    byId("letter").showModal();
  } catch (error) {
    byId("letters-count").textContent = inert(error.message);
  }
}
byId("letter-close").addEventListener("click", () => byId("letter").close());

paint();
poll();
