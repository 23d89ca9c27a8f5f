// The official SDK for Node.js: `node openai_sdk.mjs URL '[["CASE", "ARGUMENT"], …]'` prints what came of each case,
// as JSON. One process goes through all, because loading the SDK takes longer than most of them.

import OpenAI from "openai";

const [url, asked] = process.argv.slice(2);
const baseURL = `${url}/v1`;
const client = new OpenAI({ baseURL, apiKey: "secret", maxRetries: 0 });
const base = { model: "dia", voice: "aria", input: "Hello from Node." };

const failure = (error) => ({
  type: error.constructor.name,
  status: error.status,
  message: error.message,
  code: error.code,
  param: error.param,
  retryAfter: error.headers.get("retry-after"),
});

const cases = {
  async format(argument) {
    const answer = await client.audio.speech.create({ ...base, response_format: argument });
    const audio = Buffer.from(await answer.arrayBuffer());
    return { contentType: answer.headers.get("content-type"), audio: audio.toString("base64") };
  },

  async stream() {
    const input = "This sentence takes a little while to say. ".repeat(20);
    const answer = await client.audio.speech.create({ ...base, input, response_format: "pcm", stream: true });
    let [chunks, bytes] = [0, 0];
    for await (const chunk of answer.body) [chunks, bytes] = [chunks + 1, bytes + chunk.length];
    return { chunks, bytes };
  },

  async sse() {
    const answer = await client.audio.speech.create({ ...base, response_format: "pcm", stream_format: "sse" });
    const text = await answer.text();
    const events = text.split("\n\n").filter(Boolean).map((line) => JSON.parse(line.slice("data: ".length)));
    return { contentType: answer.headers.get("content-type"), events };
  },

  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    return { ids, owner: (await client.models.retrieve("dia")).owned_by };
  },

  async error(argument) {
    return client.audio.speech.create({ ...base, ...JSON.parse(argument) }).then(() => null, failure);
  },

  async limit() {
    await (await client.audio.speech.create(base)).arrayBuffer();
    return client.audio.speech.create(base).then(() => null, failure);
  },

  // fills a server that has room for two, and leaves it when a third client is refused
  async full() {
    const others = new AbortController();
    const ask = (body) => fetch(`${baseURL}/audio/speech`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: others.signal,
    });
    const running = await ask({ input: "One.", stream: true });
    await running.body.getReader().read();
    ask({ input: "Two." }).catch((error) => { if (error.name !== "AbortError") throw error; });
    while ((await (await fetch(`${url}/health`)).json()).active_jobs < 2);

    const statuses = [];
    const watched = async (...request) => {
      const answer = await fetch(...request);
      statuses.push(answer.status);
      if (answer.status === 503) others.abort();
      return answer;
    };
    const third = new OpenAI({ baseURL, apiKey: "secret", fetch: watched });
    const answer = await third.audio.speech.create({ ...base, response_format: "wav", stream: true });
    const reader = answer.body.getReader();
    const { value } = await reader.read();
    await reader.cancel();
    return { statuses, beginning: Buffer.from(value).toString("latin1", 0, 4) };
  },
};

const ended = [];
for (const [name, argument] of JSON.parse(asked)) {
  ended.push(await cases[name](argument).catch((error) => ({ failed: error.stack })));
}
console.log(JSON.stringify(ended));
