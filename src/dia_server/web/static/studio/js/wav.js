// Reads WAV from a stream and writes WAV files.

const FULL = 32768;

/** Read a response with 16-bit mono WAV; yields {rate}, then Float32Arrays of samples as they arrive. */
export async function* read(response) {
  const reader = response.body.getReader();
  let bytes = new Uint8Array(0);
  let headed = false;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    bytes = joined(bytes, value);
    if (!headed) {
      const header = parseHeader(bytes);
      if (!header) continue;
      yield { rate: header.rate };
      bytes = bytes.subarray(header.size);
      headed = true;
    }
    const whole = bytes.length & ~1;
    if (whole) yield toFloats(bytes.subarray(0, whole));
    bytes = bytes.slice(whole);
  }
}

/** Return a WAV header's sample rate and size, or null while it is incomplete. */
function parseHeader(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 12;
  let rate = 0;
  while (at + 8 <= bytes.length) {
    const name = String.fromCharCode(...bytes.subarray(at, at + 4));
    if (name === "data") return { rate, size: at + 8 };
    if (name === "fmt " && at + 16 <= bytes.length) rate = view.getUint32(at + 12, true);
    at += 8 + view.getUint32(at + 4, true);
  }
  return null;
}

function toFloats(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const samples = new Float32Array(bytes.length / 2);
  for (let i = 0; i < samples.length; i++) samples[i] = view.getInt16(2 * i, true) / FULL;
  return samples;
}

function joined(a, b) {
  if (!a.length) return b;
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

/** Return samples as a 16-bit mono WAV blob. */
export function write(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, words) => [...words].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, i) => view.setInt16(44 + 2 * i, Math.max(-FULL, Math.min(FULL - 1, Math.round(sample * FULL))), true));
  return new Blob([view], { type: "audio/wav" });
}
