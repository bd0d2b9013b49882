"use strict";
(() => {
  const box = document.querySelector(".filter");
  const input = box.querySelector("input");
  const told = box.querySelector("output");
  const rows = [...document.querySelectorAll("[data-row]")].map((row) => ({
    row,
    text: [row.textContent, row.dataset.more, ...[...row.querySelectorAll("[title]")].map((one) => one.title)]
      .join(" ").toLowerCase(),
  }));
  const holders = [...document.querySelectorAll("[data-holder]")];
  const open = new Map([...document.querySelectorAll("details[data-holder]")].map((one) => [one, one.open]));
  box.hidden = false;
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const { row, text } of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      if (!row.hidden && row.dataset.row === "container") found += 1;
    }
    for (const holder of holders) {
      holder.hidden = words.length > 0 && !holder.querySelector("[data-row]:not([hidden])");
    }
    for (const [one, before] of open) one.open = words.length > 0 ? !one.hidden : before;
    told.textContent = words.length > 0 ? `${found} of the containers listed below` : "";
  });
})();
