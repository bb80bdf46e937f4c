"use strict";
for (const player of document.querySelectorAll(".player")) {
  const data = JSON.parse(player.querySelector("script").textContent);
  const slider = player.querySelector("input");
  const button = player.querySelector("button");
  const when = player.querySelector(".when");
  const images = [...player.querySelectorAll("img")];
  const cursors = [...player.querySelectorAll(".cursor")];
  const values = [...player.querySelectorAll(".now")];
  let timer = null;

  const show = () => {
    const place = Number(slider.value);
    const step = data.steps[place];
    const time = data.times === null ? "" : ", " + data.times[place].toFixed(2) + " s";
    when.textContent = "step " + step + time;
    slider.setAttribute("aria-valuetext", when.textContent);
    for (const image of images) {
      image.src = "data:image/jpeg;base64," + data.frames[image.dataset.camera][place];
    }
    cursors.forEach((cursor) => {
      const x = cursor.ownerSVGElement.viewBox.baseVal.width * step / data.lastStep;
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
    });
    values.forEach((value, column) => {
      const number = data.values[place][column];
      value.textContent = number === null ? "not finite" : number;
    });
  };

  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  };

  const advance = () => {
    if (Number(slider.value) >= data.steps.length - 1) {
      stop();
      return;
    }
    slider.value = Number(slider.value) + 1;
    show();
  };

  button.addEventListener("click", () => {
    if (timer !== null) {
      stop();
      return;
    }
    if (Number(slider.value) >= data.steps.length - 1) slider.value = 0;
    const seconds = data.times === null ? 0.1 * data.steps.length : data.times[data.times.length - 1];
    button.textContent = "Pause";
    timer = setInterval(advance, Math.max(30, 1000 * seconds / data.steps.length));
    show();
  });

  slider.addEventListener("input", () => { stop(); show(); });

  for (const plot of player.querySelectorAll("svg")) {
    plot.addEventListener("click", (event) => {
      const box = plot.getBoundingClientRect();
      const step = data.lastStep * (event.clientX - box.left) / box.width;
      let nearest = 0;
      data.steps.forEach((each, place) => {
        if (Math.abs(each - step) < Math.abs(data.steps[nearest] - step)) nearest = place;
      });
      stop();
      slider.value = nearest;
      show();
    });
  }
  show();
}
