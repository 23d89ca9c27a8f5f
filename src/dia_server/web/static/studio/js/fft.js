// The power spectrum of a frame of real samples: an in-place radix-2 FFT.
// Own code because wavesurfer.js and its like (150 kB) draw whole recordings, not streams that still grow.

export class Fft {
  constructor(size) {
    this.size = size;
    this.real = new Float32Array(size);
    this.imaginary = new Float32Array(size);
    this.window = Float32Array.from({ length: size }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / size));
    this.cos = Float32Array.from({ length: size / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / size));
    this.sin = Float32Array.from({ length: size / 2 }, (_, i) => -Math.sin((2 * Math.PI * i) / size));
    const bits = Math.log2(size);
    this.reversed = Uint16Array.from({ length: size }, (_, i) => {
      let turned = 0;
      for (let bit = 0; bit < bits; bit++) turned |= ((i >> bit) & 1) << (bits - 1 - bit);
      return turned;
    });
  }

  /** Power of the frame of `samples` that begins at `at`, by frequency; valid until the next call. */
  power(samples, at) {
    const { size, real, imaginary, reversed, cos, sin } = this;
    for (let i = 0; i < size; i++) real[reversed[i]] = (samples[at + i] ?? 0) * this.window[i];
    imaginary.fill(0);
    for (let half = 1, step = size / 2; half < size; half *= 2, step /= 2) {
      for (let block = 0; block < size; block += 2 * half) {
        for (let i = 0, k = 0; i < half; i++, k += step) {
          const a = block + i;
          const b = a + half;
          const re = real[b] * cos[k] - imaginary[b] * sin[k];
          const im = real[b] * sin[k] + imaginary[b] * cos[k];
          real[b] = real[a] - re;
          imaginary[b] = imaginary[a] - im;
          real[a] += re;
          imaginary[a] += im;
        }
      }
    }
    for (let i = 0; i < size / 2; i++) real[i] = real[i] ** 2 + imaginary[i] ** 2;
    return real;
  }
}
