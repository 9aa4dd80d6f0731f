// Boxes drawn on a picture, in shares of it.
"use strict";

class Boxes {
  constructor(frame, onChange) {
    this.frame = frame;
    this.onChange = onChange;
    this.items = [];
    this.anomaly = null;
    frame.addEventListener("pointerdown", (event) => this.begin(event));
  }

  place(event) {
    const area = this.frame.getBoundingClientRect();
    const share = (value, low, length) => Math.min(1, Math.max(0, (value - low) / length));
    return [share(event.clientX, area.left, area.width), share(event.clientY, area.top, area.height)];
  }

  begin(event) {
    if (!this.anomaly || event.button > 0) return;
    event.preventDefault();
    this.frame.setPointerCapture(event.pointerId);
    const start = this.place(event);
    const shown = this.element([...start, ...start], this.anomaly.name);
    const corners = (end) => [0, 1].map((i) => Math.min(start[i], end[i]))
      .concat([0, 1].map((i) => Math.max(start[i], end[i])));
    const move = (next) => this.fit(shown, corners(this.place(next)));
    const end = (last) => {
      this.frame.removeEventListener("pointermove", move);
      this.frame.removeEventListener("pointerup", end);
      this.frame.removeEventListener("pointercancel", end);
      const box = corners(this.place(last));
      shown.remove();
      // A tap is no box.
      if (last.type === "pointerup" && box[2] - box[0] > 0.01 && box[3] - box[1] > 0.01) {
        this.items.push({ anomaly: this.anomaly.id, box, note: "" });
        this.anomaly = null;
      }
      this.onChange();
    };
    this.frame.addEventListener("pointermove", move);
    this.frame.addEventListener("pointerup", end);
    this.frame.addEventListener("pointercancel", end);
  }

  element(box, name) {
    const shown = document.createElement("div");
    shown.className = "box";
    shown.dataset.name = name;
    this.fit(shown, box);
    this.frame.append(shown);
    return shown;
  }

  fit(shown, [left, top, right, bottom]) {
    Object.assign(shown.style, {
      left: `${100 * left}%`, top: `${100 * top}%`,
      width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%`,
    });
  }

  draw(names) {
    for (const old of this.frame.querySelectorAll(".box")) old.remove();
    for (const item of this.items) this.element(item.box, names[item.anomaly]);
    this.frame.classList.toggle("drawing", this.anomaly !== null);
  }
}
