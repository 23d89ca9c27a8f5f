// The current request as code in several languages.

import { h, icon, notice } from "./dom.js";
import { change, onChange, state } from "./state.js";

const LANGUAGES = { curl: ["curl", curl], python: ["Python", python], javascript: ["JavaScript", javascript] };

export class Code {
  constructor(root, request) {
    this.request = request;
    this.pre = h("pre", { tabindex: 0, "aria-label": "The request as code" });
    this.buttons = Object.entries(LANGUAGES).map(([id, [name]]) =>
      h("button", { type: "button", onclick: () => change({ language: id }), id: `code-${id}` }, name));
    root.className = "code";
    root.append(
      h("div", { class: "switch", role: "group", "aria-label": "Language" }, ...this.buttons),
      this.pre,
      h("button", { type: "button", id: "copy", onclick: () => this.#copy() }, icon("code"), "Copy"),
    );
    onChange(() => this.draw());
    this.draw();
  }

  draw() {
    for (const id of Object.keys(LANGUAGES)) {
      this.buttons.find((button) => button.id === `code-${id}`).setAttribute("aria-pressed", state.language === id);
    }
    const [, write] = LANGUAGES[state.language] ?? LANGUAGES.curl;
    this.pre.textContent = write({ ...this.request(), response_format: state.format }, `speech.${state.format}`, Boolean(state.key));
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.pre.textContent);
    } catch {
      // the clipboard API needs https or localhost; copying a selection works everywhere
      getSelection().selectAllChildren(this.pre);
      if (!document.execCommand("copy")) return notice("Press Ctrl+C to copy.");
    }
    notice("Copied.");
  }
}

export function curl(body, file, key) {
  const json = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  const lines = [`curl -X POST ${location.origin}/generate`, '-H "Content-Type: application/json"'];
  if (key) lines.push('-H "Authorization: Bearer $DIA_API_KEY"');
  return [...lines, `-d '${json}'`, `--output ${file}`].join(" \\\n  ");
}

export function python(body, file, key) {
  const fields = Object.entries(body).map(([name, value]) => `        ${JSON.stringify(name)}: ${JSON.stringify(value)},`);
  return [
    ...(key ? ["import os", "", "import requests"] : ["import requests"]), "",
    "response = requests.post(",
    `    "${location.origin}/generate",`,
    ...(key ? ['    headers={"Authorization": f"Bearer {os.environ[\'DIA_API_KEY\']}"},'] : []),
    "    json={", ...fields, "    },", ")",
    "response.raise_for_status()",
    `with open("${file}", "wb") as file:`,
    "    file.write(response.content)",
  ].join("\n");
}

export function javascript(body, file, key) {
  const headers = { "Content-Type": "application/json" };
  const lines = Object.entries(headers).map(([name, value]) => `"${name}": "${value}"`);
  if (key) lines.push("Authorization: `Bearer ${process.env.DIA_API_KEY}`");
  return [
    'import { writeFile } from "node:fs/promises";', "",
    `const response = await fetch("${location.origin}/generate", {`,
    '  method: "POST",',
    `  headers: { ${lines.join(", ")} },`,
    `  body: JSON.stringify(${JSON.stringify(body, null, 2).replaceAll("\n", "\n  ")}),`,
    "});",
    "if (!response.ok) throw new Error((await response.json()).detail);",
    `await writeFile("${file}", Buffer.from(await response.arrayBuffer()));`,
  ].join("\n");
}
