"use strict";
// What all pages can do: make elements, read a chart's values by pointer and keyboard, scroll what is too wide,
// save a table as CSV.
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") element.style.cssText = value; // an attribute would need a policy that allows inline styles
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

for (const chart of document.querySelectorAll("svg.chart")) {
  const dots = [...chart.querySelectorAll(".values circle")];
  if (!dots.length) continue;
  const output = document.createElement("output");
  output.className = "value";
  output.textContent = "\u00A0";
  chart.after(output);
  const show = (dot) => {
    for (const each of dots) each.classList.toggle("shown", each === dot);
    output.textContent = dot ? dot.getAttribute("aria-label") : "\u00A0";
  };
  // One stop of the Tab key for each chart; the arrow keys go from dot to dot.
  dots.forEach((dot, place) => {
    dot.setAttribute("tabindex", place ? -1 : 0);
    dot.addEventListener("focus", () => show(dot));
    dot.addEventListener("blur", () => show(null));
    dot.addEventListener("keydown", (event) => {
      const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: dots.length - 1 }[event.key];
      if (next === undefined || !dots[next]) return;
      event.preventDefault();
      dot.setAttribute("tabindex", -1);
      dots[next].setAttribute("tabindex", 0);
      dots[next].focus();
    });
  });
  chart.addEventListener("pointermove", (event) => {
    const distance = (dot) => {
      const box = dot.getBoundingClientRect();
      return Math.hypot(event.clientX - box.x - box.width / 2, event.clientY - box.y - box.height / 2);
    };
    show(dots.reduce((a, b) => (distance(a) <= distance(b) ? a : b)));
  });
  chart.addEventListener("pointerleave", () => show(null));
}

// What scrolls can be reached by the Tab key; what fits its place is no stop.
const scrolling = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.setAttribute("tabindex", 0);
    else target.removeAttribute("tabindex");
  }
});
document.querySelectorAll(".scroll, pre").forEach((each) => scrolling.observe(each));

for (const button of document.querySelectorAll("button[data-csv]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const cell = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const rows = [...document.getElementById(button.dataset.csv).querySelectorAll("tr")];
    const lines = rows.map((row) => [...row.children].map((each) => cell(each.dataset.value || each.textContent.trim())).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    link.download = `${button.dataset.csv}.csv`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}

