"use strict";
for (const slide of document.querySelectorAll(".slide")) {
  const move = () => slide.parentElement.style.setProperty("--at", slide.value + "%");
  slide.addEventListener("input", move);
  move();
}
