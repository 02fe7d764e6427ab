// Open reports in a headless browser: no error, no request, the summary's figures on the page, accessible to all.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const build = resolve(process.argv[2]);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const expected = JSON.parse(readFileSync(join(build, "expected.json"), "utf8"));
const WIDTHS = [1280, 390];

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM,
  // Chromium has no sandbox for root, which is who runs in containers.
  args: ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", ...(process.getuid() === 0 ? ["--no-sandbox"] : [])],
});

/** The page, and everything that went wrong or was asked for while it was opened. */
async function open(file, width) {
  const page = await browser.newPage();
  const faults = [];
  const url = pathToFileURL(join(build, file)).href;
  page.on("console", (message) => ["error", "warn"].includes(message.type()) && faults.push(`console: ${message.text()}`));
  page.on("pageerror", (error) => faults.push(`error: ${error.message}`));
  page.on("requestfailed", (request) => faults.push(`request failed: ${request.url()}`));
  page.on("request", (request) => request.url() !== url && faults.push(`request: ${request.url()}`));
  await page.setViewport({ width, height: 900 });
  await page.goto(url, { waitUntil: "networkidle0", timeout: 60_000 });
  return { page, faults };
}

/** Violations of WCAG 2.2 A and AA and of good practice; everything is unfolded first. */
async function inaccessible(page) {
  await page.evaluate(() => document.querySelectorAll("details").forEach((each) => (each.open = true)));
  await page.evaluate(axe);
  const found = await page.evaluate(() =>
    axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }),
  );
  assert.ok(found.passes.length > 3, "axe-core checked next to nothing");
  return found.violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes[0].html.slice(0, 200)}`);
}

/** What the page shows, as a reader meets it. */
function shown(page) {
  return page.evaluate(() => {
    const text = (element) => element.textContent.replace(/\s+/g, " ").trim();
    return {
      lang: document.documentElement.lang,
      scripts: document.scripts.length,
      text: text(document.body),
      headings: [...document.querySelectorAll("h1, h2, h3")].map((each) => Number(each.tagName[1])),
      overflows: document.scrollingElement.scrollWidth > window.innerWidth + 1,
      figures: [...document.querySelectorAll("figure")].map((figure) => {
        const svg = figure.querySelector("svg");
        const { width, height } = svg.getBoundingClientRect();
        const inside = [...svg.querySelectorAll("text")].every((each) => {
          const [a, b] = [each.getBoundingClientRect(), svg.getBoundingClientRect()];
          return a.left >= b.left - 2 && a.right <= b.right + 2 && a.top >= b.top - 2 && a.bottom <= b.bottom + 2;
        });
        return {
          title: text(figure.querySelector("h3")),
          alternative: svg.querySelector("title").textContent,
          description: svg.querySelector("desc").textContent,
          labels: [...svg.querySelectorAll("text")].map(text),
          drawn: svg.querySelectorAll("path, use").length,
          cells: [...figure.querySelectorAll("tbody th, tbody td")].map(text),
          width,
          height,
          inside,
        };
      }),
    };
  });
}

const RAISED = "⁻⁰¹²³⁴⁵⁶⁷⁸⁹";
const plain = (text) => [...text].map((each) => (RAISED.includes(each) ? "-0123456789"[RAISED.indexOf(each)] : each)).join("");
const read = (cell) => Number(plain(cell.replace("×10", "e")));

function holdsNumbers(figure, wanted) {
  const cells = figure.cells.map(read).filter(Number.isFinite);
  for (const series of wanted.series) {
    const middles = wanted.y.categories ? series.x : series.y;
    for (const value of [...middles, ...(series.low ?? []), ...(series.high ?? [])]) {
      const near = (cell) => Math.abs(cell - value) <= 6e-4 * Math.abs(value);
      assert.ok(value === null || cells.some(near), `${wanted.title}, ${series.name}: ${value} is nowhere in its data`);
    }
  }
}

const axisTitle = ({ label, unit }) => (unit ? `${label} (${unit})` : label);

async function checkReport(name, width) {
  const wanted = expected[name];
  const { page, faults } = await open(`${name}.html`, width);
  assert.deepEqual(faults, []);
  const found = await shown(page);
  assert.equal(found.lang, "en");
  assert.equal(found.scripts, 0);
  assert.ok(!found.overflows, `the page is wider than its window of ${width}`);
  assert.equal(found.headings[0], 1);
  found.headings.slice(1).forEach((level, at) => assert.ok(level > 1 && level - found.headings[at] <= 1, "headings skip a level"));
  for (const sentence of wanted.answer ?? []) assert.ok(found.text.includes(sentence), sentence);
  for (const column of wanted.columns) assert.ok(found.text.includes(column), column);
  assert.ok(found.figures.length >= 1, "no figure");
  if (wanted.figures) assert.deepEqual(found.figures.map((each) => each.title), wanted.figures.map((each) => each.title));
  for (const [at, figure] of found.figures.entries()) {
    assert.equal(figure.alternative, figure.title);
    assert.ok(figure.description.length > 40, `${figure.title} has no description`);
    assert.ok(figure.width > 250 && figure.height > 60 && figure.drawn > 5, `${figure.title} is not drawn`);
    assert.ok(figure.inside, `${figure.title}: text is cut off`);
    const told = wanted.figures?.[at];
    if (!told) continue;
    for (const axis of [told.x, told.y]) assert.ok(figure.labels.includes(axisTitle(axis)), `${told.title}: no label ${axis.label}`);
    if (told.series.length > 1) for (const { name } of told.series) assert.ok(figure.labels.includes(name), `${told.title}: no legend of ${name}`);
    holdsNumbers(figure, told);
  }
  assert.deepEqual(await inaccessible(page), []);
  await page.close();
}

/** The data of a figure opens without a mouse. */
async function checkKeyboard(name) {
  const { page } = await open(`${name}.html`, WIDTHS[0]);
  const focused = () => page.evaluate(() => document.activeElement.tagName);
  for (let presses = 0; presses < 50 && (await focused()) !== "SUMMARY"; presses += 1) await page.keyboard.press("Tab");
  assert.equal(await focused(), "SUMMARY");
  await page.keyboard.press("Enter");
  assert.ok(await page.evaluate(() => document.activeElement.parentElement.open), "Enter does not unfold the data");
  await page.close();
}

/** The checks can fail: a page with an error, a request, no language and pale text is found out. */
async function checkBroken() {
  const { page, faults } = await open("broken.html", WIDTHS[0]);
  for (const kind of ["error: ", "request: ", "request failed: "]) assert.ok(faults.some((each) => each.startsWith(kind)), `no ${kind}`);
  const rules = (await inaccessible(page)).map((each) => each.split(":")[0]);
  for (const rule of ["html-has-lang", "image-alt", "color-contrast", "document-title"]) assert.ok(rules.includes(rule), rule);
  await page.close();
}

const checks = { "a broken page is found out": checkBroken };
for (const name of Object.keys(expected)) {
  for (const width of WIDTHS) checks[`${name}, ${width} pixels wide`] = () => checkReport(name, width);
  checks[`${name}, by keyboard`] = () => checkKeyboard(name);
}

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok    ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  ${name}\n${error.stack}`);
  }
}
await browser.close();
console.log(`${Object.keys(checks).length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
