// A box that scrolls sideways shows it, by the class `overflows`, and can be reached with the
// keyboard. For code and tables the theme sees to the keyboard; formulas and outputs are
// left. All change with the width of the window.
(() => {
  "use strict";
  const displayed = "mjx-container[display=true]";
  const reached = `div.math, ${displayed}, div.cell_output, .wide-formula`;
  const boxes = `${reached}, pre, .pst-scrollable-table-container, .output.text_html`;
  const ROUNDING = 4; // pixels: the edge of a formula is no content
  const SMALLEST = 0.6; // of its size: a formula that misses the width by less is made to fit

  const fit = (box) => {
    box.style.fontSize = "";
    const part = box.clientWidth / box.scrollWidth;
    if (part < 1 && part > SMALLEST) box.style.fontSize = `${Math.floor(100 * part) - 1}%`;
  };

  const mark = (box) => {
    if (box.matches(displayed)) fit(box);
    const wider = box.scrollWidth > box.clientWidth;
    box.classList.toggle("overflows", box.scrollWidth > box.clientWidth + ROUNDING);
    if (!box.matches(reached)) return;
    if (wider) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  };

  const watcher = new ResizeObserver((seen) => seen.forEach((one) => mark(one.target)));

  // A formula in a line that is longer than the line is made to fit, or scrolls by itself.
  const markInline = (block) => {
    for (const formula of block.querySelectorAll("mjx-container:not([display=true])")) {
      formula.style.fontSize = "";
      const width = formula.firstElementChild?.getBoundingClientRect().width ?? 0;
      // In a cell of a table it is as wide as the cell. Else a comma behind it needs room.
      const fits = width <= block.clientWidth + ROUNDING / 2;
      const part = fits ? 1 : (block.clientWidth - 4 * ROUNDING) / width;
      if (part < 1 && part > SMALLEST) formula.style.fontSize = `${Math.floor(100 * part)}%`;
      if (formula.classList.toggle("wide-formula", part <= SMALLEST)) {
        mark(formula);
      } else {
        formula.classList.remove("overflows");
        formula.removeAttribute("tabindex");
      }
    }
  };
  const lines = new ResizeObserver((seen) => seen.forEach((one) => markInline(one.target)));

  const watch = () => {
    document.querySelectorAll(`.bd-article :is(${boxes})`).forEach((box) => watcher.observe(box));
    document
      .querySelectorAll(".bd-article :is(p, li, dd):has(mjx-container)")
      .forEach((block) => lines.observe(block));
  };
  watch();
  // MathJax puts its boxes in later, inside the ones that are watched.
  window.addEventListener("load", () => window.MathJax?.startup?.promise?.then(watch));
})();
