"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const cards = [...document.querySelectorAll(".card")];
  const setFade = (element, value) => element.style.setProperty("--fade", value / 100);

  byId("fade").addEventListener("input", (event) => {
    for (const card of cards) {
      setFade(card, event.target.value);
      const slider = card.querySelector(".fade input");
      if (slider) slider.value = event.target.value;
    }
  });
  byId("boxes").addEventListener("change", (event) => {
    byId("cards").classList.toggle("bare", !event.target.checked);
  });

  const order = {
    falling: (a, b) => b.dataset.score - a.dataset.score,
    rising: (a, b) => a.dataset.score - b.dataset.score,
    key: (a, b) => a.dataset.key.localeCompare(b.dataset.key, undefined, { numeric: true }),
  };
  const arrange = () => {
    const wanted = byId("filter").value;
    const text = byId("find").value.trim().toLowerCase();
    let shown = 0;
    for (const card of cards) {
      const fits = !wanted || card.dataset.verdict === wanted || card.dataset.outcome === wanted;
      card.hidden = !fits || !card.dataset.text.toLowerCase().includes(text);
      shown += !card.hidden;
    }
    byId("cards").append(...[...cards].sort(order[byId("sort").value]));
    byId("shown").value = `${shown} shown`;
  };
  byId("filter").addEventListener("change", arrange);
  byId("sort").addEventListener("change", arrange);
  byId("find").addEventListener("input", arrange);
  byId("toolbar").addEventListener("submit", (event) => event.preventDefault());

  const large = byId("large");
  for (const card of cards) {
    const slider = card.querySelector(".fade input");
    if (slider) slider.addEventListener("input", () => setFade(card, slider.value));
    const stages = card.querySelector(".stages");
    stages.tabIndex = 0;
    stages.setAttribute("role", "button");
    stages.setAttribute("aria-label", `Enlarge ${card.dataset.key}`);
    const open = () => {
      const copy = card.cloneNode(true);
      const copied = copy.querySelector(".fade input");
      if (copied) {
        copied.value = slider.value;
        copied.addEventListener("input", () => setFade(copy, copied.value));
      }
      large.lastElementChild.replaceChildren(copy);
      large.showModal();
    };
    stages.addEventListener("click", open);
    stages.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        open();
      }
    });
  }
  large.addEventListener("click", (event) => event.target === large && large.close());
})();
