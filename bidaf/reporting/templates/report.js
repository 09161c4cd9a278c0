// Everything shown is made with textContent: data is text here, whatever it says.
const PAGE = 20;
const NO_ANSWER = "(no answer)";
const percent = (p) => (p < 0.0005 ? "<0.1" : (100 * p).toFixed(1)) + "%";
const numbers = new Intl.NumberFormat("en");

const FILTERS = [
  ["all", "all", () => true],
  ["wrong", "wrong", (asked) => !asked.final.exact],
  ["right", "right", (asked) => asked.final.exact],
  ["changed", "changed by the average", (asked) => asked.changed],
  ["gained", "made right", (asked) => asked.changed && asked.final.exact && !asked.raw.exact],
  ["lost", "made wrong", (asked) => asked.changed && !asked.final.exact && asked.raw.exact],
];

function start(section, data) {
  // Offsets count characters; a JavaScript string counts some of them twice.
  const contexts = data.contexts.map((text) => Array.from(text));
  const cut = (asked, span) => contexts[asked.context].slice(span[0], span[1]).join("") || NO_ANSWER;
  for (const asked of data.questions) {
    asked.final = asked.shadow || asked.raw;
    const [ours, theirs] = [asked.final.spans[0], asked.raw.spans[0]];
    asked.changed = ours[0] !== theirs[0] || ours[1] !== theirs[1];
    asked.text = [asked.id, asked.question, ...asked.answers, cut(asked, ours), cut(asked, theirs), data.contexts[asked.context]]
      .join("\n").toLowerCase();
  }
  const hasShadow = data.questions.some((asked) => asked.shadow);
  const filters = hasShadow ? FILTERS : FILTERS.slice(0, 3);
  // What the average did comes first; where it did nothing, what went wrong.
  const first = ["changed", "wrong"].find((name) => filters.some(([each, , test]) => each === name && data.questions.some(test)));
  const state = { filter: first || "all", search: "", shown: PAGE };
  const key = section.dataset.answers;

  const chips = make("fieldset", { class: "controls" }, make("legend", {}, "Show"));
  for (const [name, label, test] of filters) {
    const held = data.questions.filter(test).length, count = data.counts[name];
    const radio = make("input", { type: "radio", name: `${key}-filter`, value: name });
    radio.checked = name === state.filter;
    chips.append(make("label", { class: "chip" }, radio, `${label} (${numbers.format(count)}${held < count ? `, ${numbers.format(held)} here` : ""})`));
  }
  const search = make("input", { type: "search", placeholder: "Search questions and answers", "aria-label": "Search" });
  const status = make("p", { class: "muted", role: "status" });
  const list = make("ol", { class: "questions" });
  const more = make("button", { type: "button", class: "more" }, "Show more");
  section.replaceChildren(chips, search, status, list, more);

  function matching() {
    const test = filters.find(([name]) => name === state.filter)[2];
    const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
    return data.questions.filter((asked) => test(asked) && words.every((word) => asked.text.includes(word)));
  }

  function draw(from) {
    const found = matching();
    if (from === 0) list.replaceChildren();
    list.append(...found.slice(from, state.shown).map(item));
    const shown = Math.min(found.length, state.shown);
    status.textContent = found.length ? `${numbers.format(shown)} of ${numbers.format(found.length)} questions` : "No question matches.";
    more.hidden = shown >= found.length;
  }

  function answer(asked, weights) {
    const given = asked[weights];
    const mark = given.exact ? "✓ right" : given.f1 > 0 ? `✗ F1 ${Math.round(100 * given.f1)}` : "✗ wrong";
    return make("span", { class: "answer" },
      make("span", { class: `label ${weights}` }, weights), cut(asked, given.spans[0]), " ",
      make("span", { class: given.exact ? "good" : "bad" }, mark));
  }

  function item(asked) {
    const summary = make("summary", {}, make("span", {}, asked.question), answer(asked, "raw"));
    if (asked.shadow) summary.append(answer(asked, "shadow"));
    const details = make("details", {}, summary);
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(body(asked));
    });
    return make("li", {}, details);
  }

  function body(asked) {
    const spans = [...asked.gold.map((span) => ["gold", span]), ["raw", asked.raw.spans[0]]];
    if (asked.shadow) spans.push(["shadow", asked.shadow.spans[0]]);
    const key = make("p", { class: "key" });
    for (const [name, label] of [["gold", "a gold answer"], ["raw", "raw weights"], ["shadow", "shadow"]]) {
      if (spans.some(([kind]) => kind === name)) key.append(make("span", {}, make("i", { class: `span-${name}` }, label)));
    }
    const command = make("code", {}, `bidaf explain ${quoted(asked.id)} --model ${quoted(data.run)}`);
    return make("div", { class: "body" },
      passage(contexts[asked.context], spans), key,
      make("p", {}, make("b", {}, "Gold: "), asked.answers.join(" · ") || NO_ANSWER),
      make("div", { class: "columns" }, nBest(asked, "raw"), ...(asked.shadow ? [nBest(asked, "shadow")] : [])),
      make("p", { class: "muted" }, "id ", make("code", {}, asked.id), "; see why: ", command));
  }

  function nBest(asked, weights) {
    const table = make("table", {}, make("caption", { class: weights }, `${weights}: most probable answers`));
    const rows = asked[weights].spans.map((span) =>
      make("tr", {}, make("td", {}, cut(asked, span)), make("td", {}, percent(span[2]))));
    table.append(make("tbody", {}, ...rows));
    const element = make("div", { class: "scroll" }, table);
    scrolling.observe(element);
    return element;
  }

  chips.addEventListener("change", (event) => { state.filter = event.target.value; state.shown = PAGE; draw(0); });
  search.addEventListener("input", () => { state.search = search.value; state.shown = PAGE; draw(0); });
  more.addEventListener("click", () => {
    const from = state.shown;
    state.shown += PAGE;
    draw(from);
    list.children[from].querySelector("summary").focus();
  });
  draw(0);
}

// The text, split wherever a span starts or ends: spans may overlap.
function passage(characters, spans) {
  const cuts = new Set([0, characters.length]);
  for (const [, [from, to]] of spans) cuts.add(from).add(to);
  const places = [...cuts].sort((a, b) => a - b);
  const element = make("p", { class: "passage" });
  for (let i = 0; i + 1 < places.length; i++) {
    const [from, to] = [places[i], places[i + 1]];
    const kinds = spans.filter(([, span]) => span[0] <= from && to <= span[1]).map(([kind]) => `span-${kind}`);
    const text = characters.slice(from, to).join("");
    element.append(kinds.length ? make("mark", { class: kinds.join(" ") }, text) : text);
  }
  return element;
}

const quoted = (text) => (/^[\w.\/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

for (const section of document.querySelectorAll("[data-answers]")) {
  start(section, JSON.parse(document.getElementById(section.dataset.answers).textContent));
}

// Whoever begins to read or to search is not to lose the place.
const reload = document.getElementById("reload");
if (reload) {
  const stop = (event) => { if (event.target !== reload) reload.checked = false; };
  for (const kind of ["input", "toggle"]) document.addEventListener(kind, stop, true);
  setInterval(() => { if (reload.checked && !document.hidden) location.reload(); }, 1000 * reload.dataset.seconds);
}
