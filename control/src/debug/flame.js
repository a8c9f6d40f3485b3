// Zoom and search in a picture of stacks. A click on a box makes it as wide as the picture; a click
// on the lowest row, or Escape, shows all again. "search" marks what a regular expression matches.
"use strict";
const WIDTH = 1580, LEFT = 10, LETTER = 7.25;
const svg = document.documentElement;
const boxes = [...svg.querySelectorAll("g")].map((group) => {
  const rect = group.querySelector("rect");
  const title = group.querySelector("title").textContent;
  const [, name, samples] = title.match(/^(.*) \((\d+) samples/s);
  const at = (field) => parseFloat(rect.getAttribute(field));
  return { group, rect, name, samples: +samples, x: at("x"), y: at("y"), width: at("width") };
});
const ground = boxes[0];

function place(box, x, width, dim) {
  box.group.style.display = width < 0.4 ? "none" : "";
  box.group.style.opacity = dim ? 0.5 : 1;
  box.rect.setAttribute("x", x.toFixed(1));
  box.rect.setAttribute("width", Math.max(width, 0.4).toFixed(1));
  let text = box.group.querySelector("text");
  const letters = Math.floor((width - 6) / LETTER);
  if (!text && letters >= 3) {
    text = document.createElementNS(svg.namespaceURI, "text");
    text.setAttribute("y", box.y + 12.5);
    box.group.append(text);
  }
  if (text) {
    text.setAttribute("x", (x + 3).toFixed(1));
    const cut = box.name.length > letters;
    text.textContent = letters < 3 ? "" : cut ? box.name.slice(0, letters - 2) + ".." : box.name;
  }
}

function zoom(to) {
  const factor = WIDTH / Math.max(to.width, 0.4);
  for (const box of boxes) {
    const middle = box.x + box.width / 2;
    const within = middle >= to.x - 0.1 && middle <= to.x + to.width + 0.1 && box.y <= to.y;
    const below = box.y > to.y && box.x <= to.x + 0.1 && box.x + box.width >= to.x + to.width - 0.6;
    if (within) place(box, LEFT + (box.x - to.x) * factor, box.width * factor, false);
    else if (below) place(box, LEFT, WIDTH, to !== ground);
    else place(box, LEFT, 0, false);
  }
}

function search() {
  const wanted = prompt("Names that match (a regular expression); none ends the search", "");
  let matches;
  try {
    matches = new RegExp(wanted || "^$", "i");
  } catch (error) {
    return alert(error.message);
  }
  // A box within one that matches is part of it already.
  const spans = [];
  for (const box of boxes) {
    const found = Boolean(wanted) && matches.test(box.name);
    box.rect.style.fill = found ? "#b04bd8" : "";
    if (found) spans.push(box);
  }
  const covered = (box) => spans.some((other) => other !== box && other.y > box.y
    && other.x <= box.x + 0.1 && other.x + other.width >= box.x + box.width - 0.6);
  const samples = spans.filter((box) => !covered(box)).reduce((sum, box) => sum + box.samples, 0);
  const share = (100 * samples / ground.samples).toFixed(1);
  document.getElementById("found").textContent = wanted ? share + " % match" : "search";
}

boxes.forEach((box) => box.group.addEventListener("click", () => zoom(box)));
document.getElementById("found").addEventListener("click", search);
window.addEventListener("keydown", (event) => {
  if (event.key === "Escape") zoom(ground);
  if (event.key === "/") { event.preventDefault(); search(); }
});
