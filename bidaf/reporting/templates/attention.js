// One explained question: verdict, context, attention and answers of each weight set. Made with textContent, or drawn:
// data is text here, whatever it says.
const CELL = { width: 17, height: 19, gutter: 84, labels: 78 };
const PRINTED = 34; // words in a row of the printed heat map
const percent = (p) => (p < 0.0005 ? "<0.1" : (100 * p).toFixed(p < 0.0995 ? 1 : 0)) + "%";

function shape(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

let listening = new AbortController(); // of the question that is shown

function show(asked, main, printHeading) {
  listening.abort();
  listening = new AbortController();
  const width = asked.questionWords.length;
  const state = { word: null, questionWord: null };
  const panels = asked.explanations.map(panel);
  const gold = asked.gold.length ? [make("p", {}, make("b", {}, "Gold: "), asked.gold.join(" · "))] : [];
  main.replaceChildren(
    ...(printHeading ? [make("h2", { class: "paper" }, asked.question)] : []),
    make("p", { class: "headline" }, asked.verdict), ...gold,
    ...(asked.lacks ? [make("p", { id: "lacks" }, asked.lacks)] : []),
    ...(asked.cut ? [make("p", { id: "cut" }, asked.cut)] : []),
    make("p", { class: "key" },
      make("span", {}, make("i", { class: "swatch", style: "background: var(--start)" }), "probability that the answer starts here"),
      make("span", {}, make("i", { class: "swatch", style: "background: var(--end)" }), "that it ends here"),
      make("span", {}, "underlined: the answer"),
      ...(asked.isGold.length ? [make("span", {}, make("i", { class: "span-gold" }, "gold"))] : [])),
    make("p", { class: "muted" }, "The stronger a word is tinted, the more it matters to the question (question-to-context attention). ",
      make("span", { class: "screen" }, "Point at a word, tap it, or move with the arrow keys: the question above it shows what it attends to. Choose a word of the question to see which words attend to it.")),
    make("div", { class: "pair" }, ...panels.map((each) => each.element)));
  refresh();
  panels.forEach((each) => each.open());
  onbeforeprint = () => panels.forEach((each) => each.map.printed.replaceChildren(...each.map.bands()));
  onafterprint = () => panels.forEach((each) => each.map.printed.replaceChildren());

  function select(word, questionWord) {
    state.word = word;
    state.questionWord = questionWord;
    refresh();
  }

  function refresh() {
    panels.forEach((each) => each.refresh());
  }

  function panel(explanation) {
    const bytes = Uint8Array.from(atob(explanation.toQuestion), (character) => character.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const attention = (word, questionWord) => view.getUint16(2 * (word * width + questionWord), true) / 65535;
    const strongest = Math.max(...explanation.toContext) || 1; // all 0 where the variant has no such attention
    const answers = new Set(explanation.isAnswer), golds = new Set(asked.isGold);

    const buttons = asked.questionWords.map((text, number) => {
      const button = make("button", { type: "button", class: "tinted", "aria-pressed": "false" }, text);
      button.addEventListener("click", () => select(state.word, state.questionWord === number ? null : number));
      return button;
    });
    const words = asked.words.map((text, number) => {
      const span = make("span", { class: "tinted" }, text);
      span.classList.toggle("in-answer", answers.has(number));
      span.classList.toggle("in-gold", golds.has(number));
      span.style.setProperty("--s", explanation.start[number]);
      span.style.setProperty("--e", explanation.end[number]);
      return span;
    });
    const numberOf = new Map(words.map((span, number) => [span, number]));
    const passage = make("div", { class: "passage words", tabindex: "0", role: "group",
      "aria-label": `Context with the attention of ${explanation.label}; arrow keys move from word to word` });
    asked.gaps.forEach((gap, number) => passage.append(gap, words[number] || ""));
    const readout = make("p", { class: "readout", role: "status" });
    const map = heatMap(asked, attention, explanation, state, select, () => panels);

    for (const kind of ["pointerover", "click"]) {
      passage.addEventListener(kind, (event) => {
        const number = numberOf.get(event.target);
        if (number === undefined) return;
        if (number !== state.word) select(number, state.questionWord);
        if (kind === "click") panels.forEach((each) => each.map.reveal(number));
      });
    }
    passage.addEventListener("keydown", (event) => {
      const last = words.length - 1, at = state.word;
      const target = { ArrowRight: at === null ? 0 : Math.min(at + 1, last), ArrowLeft: at === null ? last : Math.max(at - 1, 0),
        Home: 0, End: last, Escape: null }[event.key];
      if (target === undefined) return;
      event.preventDefault();
      select(target, event.key === "Escape" ? null : state.questionWord);
      if (target !== null) {
        words[target].scrollIntoView({ block: "nearest" });
        panels.forEach((each) => each.map.reveal(target));
      }
    });

    const mark = explanation.exact === null ? "" : make("span", { class: explanation.exact ? "good" : "bad" }, explanation.exact ? "✓ right" : "✗ not the gold answer");
    const table = make("table", {}, make("caption", {}, "Most probable answers"),
      make("tbody", {}, ...explanation.answers.map(([text, p]) => make("tr", {}, make("td", {}, text), make("td", {}, percent(p))))));
    const element = make("section", { class: "explanation", "data-weights": explanation.weights, style: `--tone: var(--${explanation.tone})` },
      make("h2", {}, explanation.label),
      make("p", {}, make("b", {}, explanation.answers[0][0]), ` ${percent(explanation.answers[0][1])} `, mark),
      make("div", { class: "strip", role: "group", "aria-label": "Words of the question" }, ...buttons), passage, readout,
      make("h3", {}, "Context-to-question attention"), map.element, map.printed, table);

    let tinted;
    function tint() {
      if (tinted === state.questionWord) return;
      tinted = state.questionWord;
      words.forEach((span, number) => {
        const weight = tinted === null ? explanation.toContext[number] / strongest : attention(number, tinted);
        span.style.setProperty("--w", weight.toFixed(3));
      });
    }

    let chosen = null;
    return { element, map, open() {
      map.fit();
      const answer = words[explanation.isAnswer[0] || 0];
      passage.scrollTop = answer.offsetTop - passage.clientHeight / 3;
    }, refresh() {
      tint();
      if (chosen) chosen.classList.remove("chosen");
      chosen = state.word === null ? null : words[state.word];
      if (chosen) chosen.classList.add("chosen");
      const weights = buttons.map((_, number) => (state.word === null ? 0 : attention(state.word, number)));
      const most = Math.max(...weights) || 1;
      buttons.forEach((button, number) => {
        button.style.setProperty("--w", (weights[number] / most).toFixed(3));
        button.setAttribute("aria-pressed", String(number === state.questionWord));
      });
      readout.textContent = describe();
      map.draw();
    } };

    function describe() {
      if (state.word === null) {
        if (state.questionWord !== null) return `The stronger a word is tinted, the more it attends to “${asked.questionWords[state.questionWord]}”.`;
        return asked.lacks || `The most strongly tinted word holds ${percent(strongest)} of the question-to-context attention.`;
      }
      const order = [...asked.questionWords.keys()].sort((a, b) => attention(state.word, b) - attention(state.word, a));
      const most = order.slice(0, 3).map((number) => `“${asked.questionWords[number]}” ${percent(attention(state.word, number))}`);
      return `“${asked.words[state.word]}” attends to ${most.join(", ")}. Question to context: ${percent(explanation.toContext[state.word])}. ` +
        `Starts the answer: ${percent(explanation.start[state.word])}; ends it: ${percent(explanation.end[state.word])}.`;
    }
  }
}

// Only the columns in view are drawn: a context of any length costs the same.
function heatMap(asked, attention, explanation, state, select, panels) {
  const canvas = make("canvas", { role: "img", "aria-label": `Heat map: attention of ${asked.words.length} context words to ${asked.questionWords.length} question words` });
  const sheet = make("div", {}, canvas);
  const element = make("div", { class: "map", tabindex: "0", role: "group", "aria-label": "Heat map, scrolls sideways" }, sheet);
  const rows = asked.questionWords.length, columns = asked.words.length;
  const height = CELL.labels + rows * CELL.height + 4;
  const context = canvas.getContext("2d");
  let view = 0, cell = CELL.width;

  function fit() {
    view = element.clientWidth;
    cell = Math.min(40, Math.max(CELL.width, (view - CELL.gutter) / columns));
    const opening = !sheet.style.width;
    sheet.style.width = `${CELL.gutter + columns * cell}px`;
    const density = Math.min(window.devicePixelRatio || 1, 2);
    canvas.width = view * density;
    canvas.height = height * density;
    canvas.style.width = `${view}px`;
    canvas.style.height = `${height}px`;
    context.setTransform(density, 0, 0, density, 0, 0);
    draw();
    if (opening) reveal(explanation.isAnswer[0] || 0);
  }

  function reveal(column) {
    const at = column * cell;
    if (at < element.scrollLeft || at + cell > element.scrollLeft + view - CELL.gutter) element.scrollLeft = at - view / 3;
  }

  function draw() {
    const style = getComputedStyle(element);
    const [ink, line, tone] = ["--ink", "--line", "--tone"].map((name) => style.getPropertyValue(name));
    const shift = element.scrollLeft;
    const first = Math.max(0, Math.floor(shift / cell)), last = Math.min(columns, Math.ceil((shift + view) / cell));
    const left = (column) => CELL.gutter + column * cell - shift;
    context.clearRect(0, 0, view, height);
    context.font = `12px ${style.fontFamily}`;
    context.textBaseline = "middle";
    context.save();
    context.beginPath();
    context.rect(CELL.gutter, 0, view - CELL.gutter, height);
    context.clip();
    for (let column = first; column < last; column++) {
      context.fillStyle = tone;
      for (let row = 0; row < rows; row++) {
        context.globalAlpha = attention(column, row);
        context.fillRect(left(column), CELL.labels + row * CELL.height, cell - 1, CELL.height - 1);
      }
      context.globalAlpha = 1;
      context.fillStyle = ink;
      context.save();
      context.translate(left(column) + cell / 2, CELL.labels - 5);
      context.rotate(-Math.PI / 3);
      context.fillText(clip(asked.words[column], 12), 0, 0);
      context.restore();
    }
    context.strokeStyle = ink;
    context.lineWidth = 1.5;
    if (state.word !== null) context.strokeRect(left(state.word) - 1, CELL.labels - 1, cell + 1, rows * CELL.height + 1);
    context.restore();
    context.textAlign = "right";
    asked.questionWords.forEach((word, row) => {
      context.fillStyle = ink;
      context.font = `${row === state.questionWord ? "bold " : ""}12px ${style.fontFamily}`;
      context.fillText(clip(word, 11), CELL.gutter - 6, CELL.labels + (row + 0.5) * CELL.height);
      context.fillStyle = line;
      context.fillRect(0, CELL.labels + (row + 1) * CELL.height - 1, CELL.gutter - 2, 0.5);
    });
    context.textAlign = "left";
  }

  // On paper nothing scrolls: the map is drawn in rows of words, as shapes that take the colours of the paper's style.
  function bands() {
    const count = Math.ceil(columns / PRINTED), size = Math.ceil(columns / count);
    return [...Array(count).keys()].map((band) => drawBand(band * size, Math.min(columns, (band + 1) * size), size));
  }

  function drawBand(first, last, size) {
    const shapes = [];
    for (let column = first; column < last; column++) {
      const left = CELL.gutter + (column - first) * CELL.width;
      const at = `translate(${left + CELL.width / 2} ${CELL.labels - 5}) rotate(-60)`;
      shapes.push(shape("text", { transform: at }, clip(asked.words[column], 12)));
      for (let row = 0; row < rows; row++) {
        const weight = attention(column, row);
        if (weight < 0.004) continue; // one step of 256 shades
        shapes.push(shape("rect", { x: left, y: CELL.labels + row * CELL.height, width: CELL.width - 1, height: CELL.height - 1, "fill-opacity": weight.toFixed(3) }));
      }
    }
    asked.questionWords.forEach((word, row) => {
      const y = CELL.labels + (row + 0.5) * CELL.height;
      shapes.push(shape("text", { x: CELL.gutter - 6, y, "text-anchor": "end", "dominant-baseline": "middle" }, clip(word, 11)));
    });
    const width = CELL.gutter + size * CELL.width + CELL.labels / 2; // the last label leans out to the right
    return shape("svg", { width, height, viewBox: `0 0 ${width} ${height}` }, ...shapes);
  }

  function point(event) {
    const column = Math.floor((event.offsetX - CELL.gutter + element.scrollLeft) / cell);
    const row = Math.floor((event.offsetY - CELL.labels) / CELL.height);
    if (event.offsetX < CELL.gutter || column < 0 || column >= columns) return;
    const picked = event.type === "click" && row >= 0 && row < rows ? (state.questionWord === row ? null : row) : state.questionWord;
    if (column !== state.word || picked !== state.questionWord) select(column, picked);
  }

  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("click", point);
  element.addEventListener("scroll", () => {
    draw();
    for (const other of panels()) other.map.element.scrollLeft = element.scrollLeft;
  });
  new ResizeObserver(() => { if (element.clientWidth && element.clientWidth !== view) fit(); }).observe(element);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw, { signal: listening.signal });
  return { element, printed: make("div", { class: "paper" }), fit, draw, reveal, bands };
}

const clip = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
