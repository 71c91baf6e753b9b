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
  // What took longer than the worker tells apart.
  return value < 3600000 ? age(value) : "≥ 1 h";
}
function age(span) {
  const seconds = Math.max(0, Math.round(span / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}
function stamp(at) {
  if (typeof at !== "number") return "–";
  // What is no time is shown as the number that it is: one odd record hides none of the others.
  try { return new Date(at).toISOString(); } catch { return String(at); }
}
const dayOf = (at) => stamp(at).split("T")[0];
function clock(at, now) {
  const [day, time] = stamp(at).split("T");
  if (time === undefined) return day;
  return day === dayOf(now) ? time.slice(0, 8) : `${day} ${time.slice(0, 8)}`;
}

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

// What was seen since the page was opened, each with its time: the worker keeps no history.
const SPAN_S = 120;
const GAP_S = 5;
const history = new Map();
function remember(key, value, nowS) {
  const points = (history.get(key) ?? []).filter((point) => nowS - point.atS <= SPAN_S);
  points.push({ atS: nowS, value });
  history.set(key, points);
  return points;
}
const SVG = "http://www.w3.org/2000/svg";
function spark() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", `0 0 ${SPAN_S} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const path = document.createElementNS(SVG, "path");
  svg.append(path);
  const place = make("td");
  place.append(svg);
  return { place, svg, path };
}
// The right edge is now; where nobody looked there is no line.
function trace({ svg, path }, what, points, nowS) {
  const highest = Math.max(...points.map((point) => point.value));
  const most = Math.max(highest, 1);
  const way = points.map((point, at) => {
    const isBroken = at === 0 || point.atS - points[at - 1].atS > GAP_S;
    const [x, y] = [SPAN_S - (nowS - point.atS), 19 - (18 * point.value) / most];
    return `${isBroken ? "M" : "L"}${x.toFixed(1)},${y.toFixed(1)}`;
  });
  path.setAttribute("d", way.join(" "));
  svg.setAttribute("aria-label", inert(`${what}: now ${plain.format(points.at(-1).value)}, at most ${plain.format(highest)}`));
}

const OUTCOMES = ["delivered", "superseded", "duplicate", "ignored", "dead_lettered", "shadowed", "control"];
const rateOf = (one) => Object.values(one.rates ?? {}).reduce((sum, rate) => sum + rate, 0);

// The rows stay, and what is in them is changed: a reader keeps his place and his selection.
const lines = new Map();
function lineOf(name) {
  const known = lines.get(name);
  if (known) return known;
  const line = { word: make("span", "", { class: "word", "data-tone": "bad" }), lags: spark(), rates: spark(), when: make("span"), error: make("span") };
  for (const number of ["lag", "rate", "flying", "p50", "p95", "p99"]) line[number] = cell("", "number");
  line.outcomes = cell("", "long");
  const place = head(name);
  place.append(" ", line.word);
  const errors = cell("", "long");
  errors.append(line.when, line.error);
  line.row = row(
    place, line.lag, line.lags.place, line.rate, line.rates.place, line.flying, line.outcomes, line.p50, line.p95, line.p99, errors,
  );
  lines.set(name, line);
  return line;
}
function put(node, text) {
  const shown = inert(text);
  if (node.textContent !== shown) node.textContent = shown;
}

function consumers(told) {
  const all = list(told.consumers);
  const nowS = performance.now() / 1000;
  for (const one of all) {
    const line = lineOf(one.name);
    const rate = rateOf(one);
    const error = one.last_error;
    const latency = one.latency_ms ?? {};
    put(line.word, one.halted ? "halted" : one.standing_still ? "stands still" : "");
    put(line.lag, count(one.lag));
    put(line.rate, rate.toFixed(1));
    put(line.flying, count(one.in_flight));
    put(line.outcomes, OUTCOMES.filter((outcome) => one.outcomes?.[outcome] > 0)
      .map((outcome) => `${outcome} ${count(one.outcomes[outcome])}`).join(", "));
    for (const part of ["p50", "p95", "p99"]) put(line[part], ms(latency[part]));
    put(line.when, error ? `${age(told.now_ms - error.at_ms)} ago, ` : "–");
    put(line.error, error ? `${error.target}: ${error.detail}` : "");
    trace(line.lags, `Lag of ${one.name}`, remember(`lag ${one.name}`, one.lag ?? 0, nowS), nowS);
    trace(line.rates, `Records a second of ${one.name}`, remember(`rate ${one.name}`, rate, nowS), nowS);
  }
  draw("consumer-rows", all.map((one) => one.name), () => all.map((one) => lineOf(one.name).row));
  const lost = told.undecodable;
  put(byId("decode"), lost ? `Decode, for all of them: last error ${age(told.now_ms - lost.at_ms)} ago, ${lost.target}: ${lost.detail}`
    : "Decode, for all of them: no error.");
}

function client(told) {
  const one = told.client ?? {};
  const paused = Object.entries(one.paused ?? {}).filter(([, partitions]) => partitions > 0)
    .map(([cause, partitions]) => `, partitions paused for ${cause}: ${count(partitions)}`);
  const last = one.last_rebalance ? `, the last reason it gave: ${one.last_rebalance}` : "";
  // Before the first tick nothing has gone round, and there is no time.
  put(byId("client"), told.client && told.now_ms > 0 ? `Kafka client: polled ${age(one.poll_age_ms)} ago, the pipeline ticked ${age(one.tick_age_ms)} ago, `
    + `a commit outstanding for ${age(one.commit_age_ms)}${paused.join("")}, ${count(one.rebalances)} rebalances${last}.` : "");
}

const MOST_PARTITIONS = 200;
function partitions(told) {
  const all = list(told.partitions);
  const isWaiting = (one) => one.outstanding > 0 || one.paused || list(one.held_by).length > 0;
  const sorted = [...all.filter(isWaiting), ...all.filter((one) => !isWaiting(one))];
  const [shown, left] = [sorted.slice(0, MOST_PARTITIONS), sorted.slice(MOST_PARTITIONS)];
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
  const waiting = left.filter(isWaiting).length;
  const more = waiting > 0 ? `${left.length} more; in ${waiting} of them something waits.` : `${left.length} more, in which nothing waits.`;
  put(byId("partition-note"), all.length + halted.length === 0 ? "None is assigned to this worker." : left.length > 0 ? more : "");
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
    : "No look at connector, slot and group yet, or none is made (SOURCE_POLL_SECS). The command check looks.";
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
  draw("recent-rows", [dayOf(told.now_ms), shown], () => shown.map((one) => row(
    cell(clock(one.at_ms, told.now_ms), "mono"), cell(one.consumer), cell(one.table ?? "–"), cell(one.row ?? "–", "mono"),
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
  byId("letters-note").textContent = told.has_letters ? ""
    : `${count(told.totals?.letters)} written since the start. To read them: crm-event-processors console, with KAFKA_BOOTSTRAP_SERVERS, or dlq list.`;
}

let last = null;
// Times of performance.now(), which no clock that is set moves: of the last answer, and since when one is wanted.
let lastAt = 0;
let wantedAt = 0;
let trouble = "";
let paused = false;
function show(told) {
  byId("version").textContent = inert(told.version ?? "");
  const totals = told.totals ?? {};
  const rate = totals.received_a_second;
  banner(told.flow?.state ?? (told.ready ? "flowing" : "held"), list(told.flow?.why ?? told.problems), [
    ["records a second", typeof rate === "number" ? rate.toFixed(1) : "–"],
    ["behind", count(totals.behind)],
    ["in flight", count(totals.in_flight)],
    ["dead letters written since the start", count(totals.letters)],
    ["partitions", count(list(told.partitions).length + list(told.halted).length)],
  ]);
  consumers(told);
  partitions(told);
  client(told);
  source(told);
  recent(told);
  lettersNote(told);
  settings(told);
}

async function ask(path, patienceMs) {
  const answer = await fetch(path, { cache: "no-store", credentials: "omit", redirect: "error", signal: AbortSignal.timeout(patienceMs) });
  const told = await answer.json().catch(() => ({ error: `${answer.status}` }));
  if (!answer.ok) throw new Error(told.error ?? `${answer.status}`);
  return told;
}

// The command waits 5 s for the worker, and then says what is wrong.
const DATA_MS = 6000;
// Letters are read from the brokers, and there may be many of them.
const LETTERS_MS = 600000;
const SILENT_MS = 5000;
const isWanted = () => !paused && document.visibilityState === "visible";
function silent() {
  const why = trouble || `There was no answer for more than ${SILENT_MS / 1000} s.`;
  banner("silent", [why, last ? "What is below is what was said last." : "Nothing is known yet."], []);
}
async function poll() {
  if (isWanted()) {
    try {
      const told = await ask("/console/data.json", DATA_MS);
      [last, lastAt, trouble] = [told, performance.now(), ""];
      if (!paused) show(last);
    } catch (error) {
      trouble = error.message;
      if (!paused) silent();
    }
  }
  fresh();
  setTimeout(poll, 1000);
}
// By a clock of its own: whoever waits for an answer is told how old the last one is.
function fresh() {
  const now = performance.now();
  const said = last ? `as of ${age(now - lastAt)} ago` : "";
  put(byId("freshness"), paused ? `${said}, paused` : said);
  if (isWanted() && now - Math.max(lastAt, wantedAt) > SILENT_MS) silent();
}
setInterval(fresh, 1000);
document.addEventListener("visibilitychange", () => { wantedAt = performance.now(); });

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
  wantedAt = performance.now();
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
    const told = await ask(`/console/letters.json?${wanted}`, LETTERS_MS);
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
        place, cell(stamp(one.written_at_ms), "mono"), cell(one.reason), cell(`${one.topic}/${one.partition}/${one.offset}`, "mono"),
        cell(one.detail, "long"),
      );
    }));
  } catch (error) {
    byId("letters-count").textContent = inert(error.message);
  }
});

async function letter(place) {
  try {
    const told = await ask(`/console/letter.json?place=${encodeURIComponent(place)}`, LETTERS_MS);
    byId("letter-title").textContent = inert(`Letter ${place}`);
    const of = told.provenance ?? {};
    const facts = [
      ["Queue", of.consumer], ["Reason", of.reason], ["Detail", of.detail], ["Record", `${of.topic}/${of.partition}/${of.offset}`],
      ["Written", stamp(of.written_at_ms)], ["By version", of.version],
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
