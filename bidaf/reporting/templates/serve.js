// The page of `bidaf serve`. Everything shown is made with textContent: texts, answers and errors are text here.
const MOST_KEPT = 30;
const KEPT = "bidaf.history";
const byId = (id) => document.getElementById(id);
const [form, contextField, questionField] = ["ask", "context", "question"].map(byId);
const boxes = [...form.elements].filter((each) => each.name === "weights");
const checked = () => boxes.filter((box) => box.checked).map((box) => box.value);
let running = new AbortController();
let asked = null; // what the page shows

async function fetchJson(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer; is it still running?");
  }
  const text = await response.text();
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    throw new Error(`the server answered with status ${response.status}; ask again in a moment`);
  }
  if (!response.ok) throw new Error(found.error);
  return found;
}

async function ask({ remember = true } = {}) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const question = { question: questionField.value, context: contextField.value, weights: checked() };
  byId("problem").textContent = missing(question);
  if (byId("problem").textContent) return;
  byId("status").textContent = "Asking …";
  try {
    const body = JSON.stringify(question);
    const found = await fetchJson("explain", { method: "POST", headers: { "content-type": "application/json" }, body, signal });
    show(found, byId("explained"), true);
    asked = question;
    document.title = question.question;
    if (remember) link(question);
    keep({ ...question, answer: found.explanations[0].answers[0][0] });
  } catch (error) {
    if (signal.aborted) return; // another question took its place
    byId("explained").replaceChildren();
    byId("problem").textContent = error.message;
  }
  if (!signal.aborted) byId("status").textContent = "";
}

function missing(question) {
  for (const [field, name] of [[contextField, "context"], [questionField, "question"]]) {
    field.setAttribute("aria-invalid", String(!question[name].trim()));
  }
  if (!question.context.trim()) return "The passage is empty.";
  if (!question.question.trim()) return "The question is empty.";
  return question.weights.length ? "" : "No weight set is chosen.";
}

// The question stands in the fragment, which no request carries.
function link({ question, context, weights }) {
  const fragment = `#${new URLSearchParams([["q", question], ["c", context], ...weights.map((name) => ["w", name])])}`;
  byId("link").href = fragment;
  try {
    if (fragment !== location.hash) history.pushState(null, "", fragment);
  } catch {
    byId("status").textContent = "The text is too long for a link.";
  }
}

function restore() {
  const found = new URLSearchParams(location.hash.slice(1));
  if (!found.has("q") || !found.has("c")) return;
  fill({ question: found.get("q"), context: found.get("c"), weights: found.getAll("w") });
  ask({ remember: false });
}

function fill({ question, context, weights = [] }) {
  questionField.value = question;
  contextField.value = context;
  const known = boxes.filter((box) => weights.includes(box.value));
  if (known.length) boxes.forEach((box) => { box.checked = known.includes(box); });
}

function kept() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT)) || [];
  } catch {
    return [];
  }
}

function keep(entry) {
  const same = (other) => other.question === entry.question && other.context === entry.context;
  const entries = [entry, ...kept().filter((other) => !same(other))].slice(0, MOST_KEPT);
  for (; entries.length; entries.pop()) {
    try {
      sessionStorage.setItem(KEPT, JSON.stringify(entries));
      break;
    } catch {} // the browser keeps a few megabytes: the oldest go
  }
  drawHistory();
}

function drawHistory() {
  const entries = kept();
  byId("history").hidden = !entries.length;
  byId("history").querySelector("ul").replaceChildren(...entries.map((entry) => choice(entry, entry.question, entry.answer)));
}

function choice(question, ...texts) {
  const button = make("button", { type: "button" }, ...texts.map((text) => make("span", {}, text)));
  button.addEventListener("click", () => {
    fill(question);
    ask();
    form.scrollIntoView();
  });
  return make("li", {}, button);
}

function chooseFromDev(section) {
  const search = byId("search");
  let searching = 0;
  async function find() {
    const number = ++searching;
    try {
      const found = await fetchJson(`dev?${new URLSearchParams({ search: search.value })}`);
      if (number !== searching) return; // a later search is on its way
      byId("found").textContent = found.length ? "" : "No question matches.";
      byId("choices").replaceChildren(...found.map((each) => choice(each, each.question, each.id)));
    } catch (error) {
      byId("found").textContent = error.message;
    }
  }
  section.addEventListener("toggle", () => { if (section.open) find(); });
  search.addEventListener("input", find);
}

form.addEventListener("submit", (event) => { event.preventDefault(); ask(); });
contextField.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask(); });
for (const box of boxes) box.addEventListener("change", () => { if (asked) ask(); });
byId("clear").addEventListener("click", () => { sessionStorage.removeItem(KEPT); drawHistory(); });
addEventListener("popstate", restore);
if (byId("dev")) chooseFromDev(byId("dev"));
drawHistory();
restore();
