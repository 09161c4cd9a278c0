const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("explained");
const body = make("div", {});
main.replaceChildren(body);
if (data.length > 1) {
  const choice = make("select", { id: "choice" }, ...data.map((asked, number) => make("option", { value: number }, asked.question)));
  main.prepend(make("p", { class: "controls" }, make("label", { for: "choice" }, "Question "), choice));
  choice.addEventListener("change", () => show(data[choice.value], body, true));
}
show(data[0], body, data.length > 1);
