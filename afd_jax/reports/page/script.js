"use strict";
// Everything can be read without this: it switches curves off and tells values under the pointer.
const tip = document.getElementById("tip");
for (const figure of document.querySelectorAll("figure")) {
  const plot = figure.querySelector(".plot svg");
  const hidden = new Set();
  for (const button of figure.querySelectorAll("button[data-of]")) {
    button.addEventListener("click", () => {
      const of = button.dataset.of, off = !hidden.has(of);
      off ? hidden.add(of) : hidden.delete(of);
      button.setAttribute("aria-pressed", String(!off));
      for (const part of plot.querySelectorAll(`[data-series="${of}"]`)) part.classList.toggle("off", off);
    });
  }
  if (!figure.dataset.frame) continue;
  const [left, top, width, height, first, last] = JSON.parse(figure.dataset.frame);
  const digits = Number(figure.dataset.digits);
  const series = JSON.parse(figure.querySelector("script").textContent);
  const rule = document.createElementNS("http://www.w3.org/2000/svg", "line");
  rule.setAttribute("style", "stroke:var(--mid);stroke-width:.8;visibility:hidden");
  rule.setAttribute("y1", top);
  rule.setAttribute("y2", top + height);
  plot.append(rule);
  const leave = () => { tip.hidden = true; rule.style.visibility = "hidden"; };
  const point = (event) => {
    const box = plot.getBoundingClientRect();
    const x = (event.clientX - box.left) * plot.viewBox.baseVal.width / box.width;
    const wanted = first + (x - left) / width * (last - first);
    const shown = series.map((s, k) => [s, String(k)]).filter(([, k]) => !hidden.has(k));
    if (!shown.length || x < left - 5 || x > left + width + 5) return leave();
    const nearest = (xs) => xs.reduce((best, v, i) => Math.abs(v - wanted) < Math.abs(xs[best] - wanted) ? i : best, 0);
    const at = shown[0][0].x[nearest(shown[0][0].x)];
    const place = left + (at - first) / (last - first) * width;
    rule.setAttribute("x1", place);
    rule.setAttribute("x2", place);
    rule.style.visibility = "visible";
    const lines = shown.map(([s]) => {
      const i = nearest(s.x), range = s.low ? ` (${s.low[i].toFixed(digits)} to ${s.high[i].toFixed(digits)})` : "";
      return `${s.name}: ${s.y[i].toFixed(digits)}${range}`;
    });
    tip.textContent = [`epoch ${Number(at.toPrecision(4))}`, ...lines].join("\n");
    tip.hidden = false;
    const own = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - own.width - 8))}px`;
    tip.style.top = `${Math.max(4, event.clientY + 18 + own.height > innerHeight ? event.clientY - own.height - 12 : event.clientY + 18)}px`;
  };
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("pointerleave", leave);
}
