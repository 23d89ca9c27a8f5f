// Runs before the first paint, so that a chosen theme does not flash; the rest waits for main.js.
try {
  document.documentElement.dataset.theme = localStorage.getItem("dia-theme") || "auto";
} catch {
  document.documentElement.dataset.theme = "auto"; // the browser may forbid storage
}
