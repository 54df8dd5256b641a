// A box that scrolls sideways can be reached with the keyboard. The theme sees to code and
// tables; formulas and figures are left, and change with the width of the window.
(() => {
  "use strict";
  const boxes = "div.math, mjx-container[display=true], div.cell_output";

  const mark = (box) => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  };

  const watcher = new ResizeObserver((seen) => seen.forEach((one) => mark(one.target)));
  const watch = () => document.querySelectorAll(boxes).forEach((box) => watcher.observe(box));
  watch();
  // MathJax puts its boxes in later, inside the ones that are watched.
  window.addEventListener("load", () => window.MathJax?.startup?.promise?.then(watch));
})();
