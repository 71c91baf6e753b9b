// The console in a real browser, over a worker that works. Called by tests/real/console.rs, which makes the worker, the load, a row
// whose id is hostile, and dead letters. It looks at what a person would: what is shown, what is asked for, where the keyboard leads.
"use strict";
const assert = require("node:assert/strict");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const axe = require("axe-core");
const { chromium } = require("playwright-core");

// Of the worker and of the command; what the hostile row is called, before and after; where pictures go.
const { BROWSER, WORKER, COMMAND, HOSTILE, INERT, SHOTS } = process.env;
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const PATIENCE = 240_000;

async function open(base, options, visit) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "console-profile-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: BROWSER, headless: true, args: FLAGS, viewport: { width: 1360, height: 900 }, ...options,
  });
  try {
    const page = context.pages()[0];
    page.setDefaultTimeout(PATIENCE);
    const seen = { requests: [], errors: [], base };
    context.on("request", (request) => seen.requests.push(request.url()));
    page.on("pageerror", (error) => seen.errors.push(String(error)));
    page.on("console", (message) => message.type() === "error" && seen.errors.push(message.text()));
    page.on("dialog", (dialog) => { seen.errors.push(`a dialog: ${dialog.message()}`); void dialog.dismiss(); });
    await visit(page, seen, context);
  } finally {
    await context.close();
    fs.rmSync(profile, { recursive: true, force: true });
  }
}

const text = (page, id) => page.locator(`#${id}`).innerText();
const rows = (page, id) => page.locator(`#${id} tr`).count();
const until = (page, what, given) => page.waitForFunction(what, given, { timeout: PATIENCE });

async function flows(page) {
  await page.goto(`${page.base}/console`);
  await until(page, () => document.getElementById("state").textContent === "Flowing");
  await until(page, () => document.querySelectorAll("#consumer-rows tr").length === 5);
}

async function theWorkersPage() {
  await open(WORKER, {}, async (page, seen) => {
    page.base = WORKER;
    const answer = await page.goto(`${WORKER}/console`);
    const body = await answer.body();
    assert.ok(body.length < 200 * 1024, `the page has ${body.length} bytes`);
    console.log(`the page: ${body.length} bytes`);
    const policy = answer.headers()["content-security-policy"];
    assert.match(policy, /^default-src 'none'; script-src 'sha256-[^']+'; style-src 'sha256-[^']+'; connect-src 'self'; /);
    await flows(page);

    // Rates come, and lines with several points.
    await until(page, () => Array.from(document.querySelectorAll(".spark path"))
      .every((line) => line.getAttribute("d").split("L").length > 3));
    await until(page, () => Array.from(document.querySelectorAll("#totals div"))
      .some((pair) => pair.innerText.startsWith("records a second") && Number(pair.querySelector("dd").textContent) > 0));
    // Three records were no JSON: three letters, however many consumers would have read them.
    await until(page, () => document.getElementById("totals").innerText.includes("dead letters written since the start"));
    assert.equal(await page.locator("#totals div", { hasText: "dead letters" }).locator("dd").innerText(), "3");
    assert.match(await text(page, "decode"), /last error .* ago, record: not_json/);
    assert.match(await text(page, "client"), /^Kafka client: polled \d+ s ago, .* a commit outstanding for \d+ s.*, \d+ rebalances/);
    await onlyTheStateAnnouncesItself(page);
    assert.ok(await rows(page, "partition-rows") > 0);
    const currency = await page.locator("#consumer-rows tr", { hasText: "currency" }).innerText();
    assert.match(currency, /delivered [0-9,]+/);
    // The load says that its rows were written long ago.
    assert.match(currency, / (ms|s|min|h|d)\b/, "a latency");
    assert.match(await text(page, "config-text"), /topic_prefix/);
    assert.match(await text(page, "config-text"), /Looking \{/, "and how it looks around");

    // The hostile row is a text like any other, and written out.
    await page.locator("#recent-text").fill("alert");
    await until(page, (inert) => document.getElementById("recent-rows").innerText.includes(inert), INERT);
    assert.equal(await page.locator("#recent-rows img, #recent-rows script, #recent-rows b").count(), 0);
    assert.ok(HOSTILE.includes("\u202e") && !(await page.content()).includes("\u202e"), "nothing reorders what stands beside it");
    await page.locator("#recent-text").fill("");
    await page.locator("#recent-outcome").selectOption("dead_lettered");
    await until(page, () => document.querySelectorAll("#recent-rows tr").length > 0);
    for (const line of await page.locator("#recent-rows tr").allInnerTexts()) assert.match(line, /dead_lettered/);
    assert.match(await text(page, "letters-note"), /console, with KAFKA_BOOTSTRAP_SERVERS/);

    await keyboard(page);
    for (const width of [380, 1360]) {
      await page.setViewportSize({ width, height: 800 });
      const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(over <= 0, `${over} px wider than a window of ${width}`);
    }
    await oddData(page);
    await aFrozenWorker(page);
    onlyTheseAreAskedFor(seen, ["/console/data.json"]);
    assert.deepEqual(seen.errors, []);

    // Whatever got in could load nothing, run nothing, and make no markup.
    const tried = await page.evaluate(async () => {
      const violations = [];
      document.addEventListener("securitypolicyviolation", (event) => violations.push(event.effectiveDirective));
      const outcome = {};
      try { document.body.innerHTML = "<p>markup</p>"; outcome.markup = "made"; } catch { outcome.markup = "refused"; }
      await fetch("http://127.0.0.1:1/away").then(() => { outcome.away = "asked"; }, () => { outcome.away = "refused"; });
      const image = document.createElement("img");
      image.src = "http://127.0.0.1:1/pixel";
      document.body.append(image);
      const style = document.createElement("style");
      style.textContent = "body { display: none }";
      document.body.append(style);
      await new Promise((done) => { setTimeout(done, 200); });
      outcome.hidden = getComputedStyle(document.body).display === "none";
      return { outcome, violations };
    });
    assert.deepEqual(tried.outcome, { markup: "refused", away: "refused", hidden: false });
    for (const directive of ["connect-src", "img-src", "style-src-elem"]) assert.ok(tried.violations.includes(directive), directive);
  });
}

/** While all flows a screen reader is left alone, and rows stay the same for whoever reads in them. */
async function onlyTheStateAnnouncesItself(page) {
  const deadline = Date.now() + PATIENCE;
  let seen;
  do {
    await until(page, () => document.getElementById("state").textContent === "Flowing");
    seen = await whatIsAnnounced(page);
    // On a busy machine an answer may come too late for the page, which then says so.
  } while (!seen.flowed && Date.now() < deadline);
  assert.ok(seen.flowed, "never flowed for long enough");
  assert.ok(seen.has, "nothing changed: this shows nothing");
  assert.ok(seen.live.includes("state"), `live: ${seen.live}`);
  assert.deepEqual(seen.announced, []);
  assert.ok(seen.kept, "the rows of consumers are others");
}

function whatIsAnnounced(page) {
  return page.evaluate(async (patience) => {
    const announced = [];
    const flows = () => document.getElementById("state").textContent === "Flowing";
    let flowed = flows();
    const note = (changes) => {
      flowed &&= flows();
      announced.push(...changes.map((change) => change.target.id || change.target.parentElement?.id || "?"));
    };
    const observer = new MutationObserver(note);
    const live = document.querySelectorAll("[role=status], [role=alert], [role=log], [aria-live], output");
    for (const region of live) observer.observe(region, { subtree: true, childList: true, characterData: true });
    const first = document.querySelector("#consumer-rows tr");
    const before = document.getElementById("totals").innerText;
    const deadline = Date.now() + patience;
    while (flowed && document.getElementById("totals").innerText === before && Date.now() < deadline) {
      await new Promise((done) => { setTimeout(done, 500); });
    }
    await new Promise((done) => { setTimeout(done, 2500); });
    observer.disconnect();
    const has = document.getElementById("totals").innerText !== before;
    const kept = document.querySelector("#consumer-rows tr") === first;
    return { announced, live: Array.from(live, (region) => region.id), flowed, has, kept };
  }, PATIENCE);
}

/** What no worker of today says, or none says here: it is shown as far as it can be. */
async function oddData(page) {
  await page.locator("#pause").click();
  const shown = await page.evaluate(() => {
    const [now_ms, day] = [Date.UTC(2026, 10, 21, 0, 30), 86_400_000];
    const recent = [now_ms, now_ms - day, 1e20].map((at_ms, offset) => (
      { at_ms, consumer: "tier", topic: "t", partition: 0, offset, outcome: "delivered" }));
    const partition = (partition, outstanding) => (
      { topic: "t", partition, committed: 1, position: 1, outstanding, paused: false, held_by: [], skew: 0, watermarks: {}, absent: {} });
    const notes = [0, 203].map((waiting) => {
      const partitions = Array.from({ length: 250 }, (_, at) => partition(at, at < waiting ? 1 : 0));
      show({ now_ms, consumers: [{ name: "tier", latency_ms: { p50: 9, p95: 59_000, p99: 3_600_000 } }], partitions, recent });
      return document.getElementById("partition-note").innerText;
    });
    return {
      notes,
      times: Array.from(document.querySelectorAll("#recent-rows tr"), (line) => line.cells[0].innerText),
      latency: Array.from(document.querySelector("#consumer-rows tr").cells, (one) => one.innerText).slice(7, 10),
    };
  });
  assert.deepEqual(shown, {
    notes: ["50 more, in which nothing waits.", "50 more; in 3 of them something waits."],
    times: ["00:30:00", "2026-11-20 00:30:00", "100000000000000000000"],
    latency: ["9.0 ms", "59.0 s", "≥ 1 h"],
  });
  // Two looks with a minute between them are two points and no line; what is older than two minutes is gone.
  const ways = await page.evaluate(() => {
    const drawn = spark();
    const points = [[0, 1], [60, 2], [61, 2], [110, 3], [111, 4]];
    return [61, 111, 190].map((nowS) => {
      for (const [atS, value] of points.filter((point) => point[0] <= nowS)) {
        if (!history.get("test")?.some((point) => point.atS === atS)) remember("test", value, atS);
      }
      trace(drawn, "test", history.get("test").filter((point) => nowS - point.atS <= SPAN_S), nowS);
      return drawn.path.getAttribute("d").replaceAll(/,[0-9.]+/g, "");
    });
  });
  assert.deepEqual(ways, ["M59.0 M119.0 L120.0", "M9.0 M69.0 L70.0 M119.0 L120.0", "M40.0 L41.0"]);
  await page.locator("#pause").click();
  await until(page, () => document.querySelectorAll("#consumer-rows tr").length === 5);
}

/** A worker that takes the question and says nothing: nobody sees a green page for it. */
async function aFrozenWorker(page) {
  await until(page, () => document.getElementById("state").textContent === "Flowing");
  await page.route("**/console/data.json", () => { /* Never answered. */ });
  await until(page, () => document.getElementById("state").textContent === "No answer");
  const freshness = await text(page, "freshness");
  const [, seconds] = /^as of (\d+) s ago$/.exec(freshness) ?? [];
  assert.ok(Number(seconds) >= 5, freshness);
  assert.ok(await rows(page, "consumer-rows") === 5, "what was said last stays");
  await page.unroute("**/console/data.json");
  await until(page, () => document.getElementById("state").textContent === "Flowing");
}

/** What was asked for since the page was opened: the page once, and data; of nobody else anything. */
function onlyTheseAreAskedFor(seen, data) {
  const pages = seen.requests.filter((url) => url === `${seen.base}/console`);
  assert.ok(pages.length > 0 && pages.length <= 3, `the page was asked for ${pages.length} times`);
  const others = seen.requests.filter((url) => !pages.includes(url))
    .filter((url) => !data.some((known) => url.startsWith(`${seen.base}${known}`)) && url !== "data:,");
  assert.deepEqual(others, []);
}

async function keyboard(page) {
  // From the begin: the keyboard goes on where somebody clicked last.
  await flows(page);
  const order = [];
  await page.locator("body").press("Tab");
  for (let step = 0; step < 40; step += 1) {
    const at = await page.evaluate(() => {
      const node = document.activeElement;
      if (node === document.body) return null;
      const all = Array.from(document.querySelectorAll("*"));
      const style = getComputedStyle(node);
      return {
        name: node.id || node.className || node.textContent.slice(0, 20),
        place: all.indexOf(node),
        visible: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
      };
    });
    if (at === null || at.place === order[0]?.place) break;
    order.push(at);
    await page.keyboard.press("Tab");
  }
  assert.ok(order.length >= 14, `the keyboard reaches ${order.length} places`);
  assert.equal(order[0].name, "skip");
  for (const at of order) assert.ok(at.visible, `it does not show that the focus is on ${at.name}`);
  const places = order.map((at) => at.place);
  assert.deepEqual(places, [...places].sort((one, other) => one - other), "the keyboard follows the page");
  await page.locator("#pause").focus();
  await page.keyboard.press("Space");
  assert.equal(await page.locator("#pause").getAttribute("aria-pressed"), "true");
  await page.keyboard.press("Enter");
  assert.equal(await page.locator("#pause").getAttribute("aria-pressed"), "false");
  console.log(`the keyboard reaches ${order.length} places, in order`);
}

/** Everything that axe knows to look for, in both themes; with pictures for people. */
async function whatAxeFinds(scheme) {
  // Its own scripts are none of the page's: only here may they be put in.
  await open(WORKER, { colorScheme: scheme, bypassCSP: true }, async (page) => {
    page.base = WORKER;
    await flows(page);
    await until(page, () => document.querySelectorAll(".spark path")[0].getAttribute("d").split("L").length > 8);
    const theme = await page.evaluate(() => document.documentElement.dataset.theme);
    assert.equal(theme, scheme);
    if (SHOTS) await page.screenshot({ path: path.join(SHOTS, `console-${scheme}.png`), fullPage: true });
    await page.locator("#pause").click();
    await page.evaluate(axe.source);
    const found = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
    const told = found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.target.join(" ")).slice(0, 3).join("; ")}`);
    assert.deepEqual(told, [], scheme);
    assert.ok(found.passes.length > 20, `axe looked at ${found.passes.length} things`);
    console.log(`axe, ${scheme}: ${found.passes.length} rules hold, none is broken`);
  });
}

async function theCommandsPage() {
  await open(COMMAND, {}, async (page, seen) => {
    page.base = COMMAND;
    await flows(page);
    assert.match(await text(page, "config-text"), /topic_prefix/, "the worker tells its settings");
    await page.locator("#letters-reason").fill("nothing of the kind");
    await page.locator("#letters-filter button").press("Enter");
    await until(page, () => document.getElementById("letters-count").textContent.startsWith("0 open"));
    await page.locator("#letters-reason").fill("");
    await page.locator("#letters-queue").selectOption("decode");
    await page.locator("#letters-filter button").press("Enter");
    await until(page, () => document.querySelectorAll("#letter-rows tr").length > 0);
    const first = page.locator("#letter-rows button").first();
    const place = await first.innerText();
    assert.match(place, /^decode\/\d+\/\d+$/);
    await first.focus();
    await page.keyboard.press("Enter");
    await until(page, () => document.getElementById("letter").open);
    const shown = await text(page, "letter");
    assert.ok(shown.includes("not_json"), shown);
    assert.ok(shown.includes("<img src=x"), "its value is shown as it is");
    assert.equal(await page.locator("#letter img").count(), 0);
    if (SHOTS) await page.screenshot({ path: path.join(SHOTS, "console-letter.png") });
    await page.keyboard.press("Escape");
    assert.equal(await page.evaluate(() => document.getElementById("letter").open), false);
    assert.equal(await page.evaluate(() => document.activeElement.textContent), place, "back where it was opened");
    onlyTheseAreAskedFor(seen, ["/console/data.json", "/console/letters.json", "/console/letter.json"]);
    assert.deepEqual(seen.errors, []);

    // The worker is stopped by whoever called us, at this word.
    console.log("stop the worker");
    await until(page, () => document.getElementById("state").textContent === "No answer");
    assert.match(await text(page, "why"), /no worker answers/);
    assert.equal(await rows(page, "consumer-rows"), 5, "what was said last stays");
    if (SHOTS) await page.screenshot({ path: path.join(SHOTS, "console-silent.png"), fullPage: true });
  });
}

(async () => {
  await theWorkersPage();
  for (const scheme of ["light", "dark"]) await whatAxeFinds(scheme);
  await theCommandsPage();
  console.log("all of it");
})().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
