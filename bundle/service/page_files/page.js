"use strict";
(() => {
  document.documentElement.classList.add("scripted");

  // the worklist renews itself
  if (document.getElementById("live")) {
    setInterval(async () => {
      if (document.hidden || document.getElementById("live").contains(document.activeElement)) return;
      const answer = await fetch(location.href).catch(() => null);
      if (!answer || !answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      document.getElementById("live").replaceWith(page.getElementById("live"));
    }, 3000);
  }

  for (const reading of document.querySelectorAll(".reading")) {
    const overlay = reading.querySelector(".overlay");
    const slider = reading.querySelector(".fade input");
    const fade = (value) => {
      slider.value = value;
      if (overlay) overlay.style.opacity = value / 100;
    };
    slider.addEventListener("input", () => fade(slider.value));
    const form = reading.querySelector("form");
    if (form) correct(reading, form, fade);
  }

  function correct(reading, form, fade) {
    const svg = reading.querySelector("svg");
    const list = form.querySelector("ul.boxes");
    const choice = form.querySelector("select.label");
    const label = () => (choice ? choice.value : JSON.parse(form.dataset.labels)[0]);
    const boxes = JSON.parse(form.dataset.boxes);

    const show = () => {
      svg.replaceChildren(...boxes.map(rectangle));
      list.replaceChildren(
        ...boxes.map((box, index) => {
          const line = document.createElement("li");
          const remove = document.createElement("button");
          remove.type = "button";
          remove.textContent = "Remove";
          remove.addEventListener("click", () => {
            boxes.splice(index, 1);
            show();
          });
          const words = document.createElement("span");
          const [x, y, width, height] = [box.x, box.y, box.width, box.height].map(Math.round);
          words.textContent = `${box.label}: ${x}, ${y}, ${width} × ${height}`;
          line.append(words, remove);
          return line;
        }),
      );
      form.elements.boxes.value = JSON.stringify(boxes);
    };
    const rectangle = (box) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      for (const side of ["x", "y", "width", "height"]) element.setAttribute(side, box[side]);
      return element;
    };

    form.querySelector(".open").addEventListener("click", (event) => {
      const drawing = reading.classList.toggle("drawing");
      event.currentTarget.setAttribute("aria-expanded", drawing);
      fade(drawing ? 0 : 100);
      if (drawing) show();
      else svg.replaceChildren();
    });

    // client coordinates to pixels of the image, inside of it
    const place = (event) => {
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const size = svg.viewBox.baseVal;
      return [Math.min(Math.max(point.x, 0), size.width), Math.min(Math.max(point.y, 0), size.height)];
    };
    let start = null;
    const drawn = (event) => {
      const [x, y] = place(event);
      const box = { label: label(), x: Math.min(x, start[0]), y: Math.min(y, start[1]) };
      return { ...box, width: Math.abs(x - start[0]), height: Math.abs(y - start[1]) };
    };
    svg.addEventListener("pointerdown", (event) => {
      svg.setPointerCapture(event.pointerId);
      start = place(event);
    });
    svg.addEventListener("pointermove", (event) => {
      if (start) svg.replaceChildren(...[...boxes, drawn(event)].map(rectangle));
    });
    svg.addEventListener("pointerup", (event) => {
      if (!start) return;
      const box = drawn(event);
      start = null;
      if (box.width >= 1 && box.height >= 1) {
        boxes.push(box);
        for (const tick of form.querySelectorAll("[name=finding]")) tick.checked ||= tick.value === box.label;
      }
      show();
    });
    svg.addEventListener("pointercancel", () => {
      start = null;
      show();
    });
  }
})();
