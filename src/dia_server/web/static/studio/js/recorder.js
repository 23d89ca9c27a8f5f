// Records from the microphone and reports its level.

export class Recorder {
  #chunks = [];
  #meter = 0;
  #dropped = false;
  #ended = null;

  /**
   * Ask for the microphone and record; `onlevel(0…1, seconds)` is called while it records. Resolves to true
   * once it records, or to false if `drop` was called while the browser asked the user.
   */
  async start(onlevel) {
    this.stream = await navigator.mediaDevices.getUserMedia({
      // processing for calls would change the voice
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    if (this.#dropped) {
      this.#giveBack();
      return false;
    }
    this.recorder = new MediaRecorder(this.stream);
    this.recorder.addEventListener("dataavailable", (event) => this.#chunks.push(event.data));
    this.#ended = new Promise((resolve) => this.recorder.addEventListener("stop", resolve, { once: true }));
    this.context = new AudioContext();
    const analyser = new AnalyserNode(this.context, { fftSize: 1024 });
    this.context.createMediaStreamSource(this.stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    const began = performance.now();
    this.recorder.start();
    this.#meter = setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      const peak = samples.reduce((loudest, sample) => Math.max(loudest, Math.abs(sample)), 0);
      onlevel(peak, (performance.now() - began) / 1000);
    }, 60);
    return true;
  }

  /** Cancel a recording whose `start` has not returned. */
  drop() {
    this.#dropped = true;
  }

  /** End the recording and release the microphone; resolves to a Blob. */
  async stop() {
    clearInterval(this.#meter);
    // the recorder is inactive already if the microphone was unplugged
    if (this.recorder.state !== "inactive") this.recorder.stop();
    await this.#ended;
    this.#giveBack();
    this.context.close();
    return new Blob(this.#chunks, { type: this.recorder.mimeType });
  }

  #giveBack() {
    for (const track of this.stream.getTracks()) track.stop();
  }
}

/** Return the message for a microphone error. */
export function microphoneTrouble(error) {
  if (!navigator.mediaDevices) return "Browsers allow the microphone on https and localhost only. Upload a file instead.";
  if (error.name === "NotAllowedError") return "The browser was not allowed to use the microphone.";
  if (error.name === "NotFoundError") return "There is no microphone.";
  return `The microphone does not work: ${error.message}`;
}
