"use strict";
// What the pages do better with a script: copy buttons, lists that are filtered while somebody types, and a
// theme that changes without a new page. Every page works without it.

document.documentElement.classList.add("scripted");

function copy(button) {
  const text = button.dataset.copy;
  const done = () => {
    button.classList.add("copied");
    document.getElementById("said").textContent = "Copied.";
    setTimeout(() => button.classList.remove("copied"), 1500);
  };
  if (navigator.clipboard) {
    navigator.clipboard.writeText(text).then(done, () => copyBySelection(text, done));
  } else {
    copyBySelection(text, done); // over plain HTTP a page has no clipboard
  }
}

function copyBySelection(text, done) {
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "hidden";
  document.body.append(field);
  field.select();
  if (document.execCommand("copy")) done();
  field.remove();
}

function changeTheme(form) {
  const next = form.elements.theme;
  const root = document.documentElement;
  root.dataset.theme = next.value;
  const week = 60 * 60 * 24 * 365;
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `digestry-theme=${next.value}; Path=/; Max-Age=${week}; SameSite=Lax${secure}`;
  next.value = next.value === "dark" ? "light" : "dark";
  labelTheme(form);
}

function labelTheme(form) {
  const button = form.querySelector("button");
  button.textContent = form.elements.theme.value === "dark" ? "Dark" : "Light";
  button.setAttribute("aria-label", `Use the ${form.elements.theme.value} theme`);
}

let turn = 0;
async function filterList(form) {
  const mine = ++turn;
  const address = new URL(form.action);
  for (const [name, value] of new FormData(form)) if (value) address.searchParams.set(name, value);
  const answer = await fetch(address, { headers: { Accept: "text/html" } });
  if (!answer.ok || mine !== turn) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const found = page.getElementById("list");
  if (mine !== turn || found === null) return;
  document.getElementById("list").replaceWith(found);
  history.replaceState(null, "", address);
  document.getElementById("said").textContent = found.dataset.said;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button !== null) copy(button);
});
document.addEventListener("submit", (event) => {
  if (event.target.matches(".theme")) {
    event.preventDefault();
    changeTheme(event.target);
  }
});
let waiting = 0;
document.addEventListener("input", (event) => {
  const form = event.target.closest("form.filter");
  if (form === null) return;
  clearTimeout(waiting);
  waiting = setTimeout(() => filterList(form), 150);
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select") !== null;
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const field = document.getElementById("find");
    if (field !== null) {
      event.preventDefault();
      field.focus();
    }
  }
});
for (const form of document.querySelectorAll(".theme")) {
  if (!document.documentElement.dataset.theme) {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    form.elements.theme.value = dark ? "light" : "dark";
    labelTheme(form);
  }
}
