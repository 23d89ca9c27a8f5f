// Runs before the first paint, so that a chosen theme does not flash; the rest waits for main.js.
document.documentElement.dataset.theme = localStorage.getItem("dia-theme") || "auto";
