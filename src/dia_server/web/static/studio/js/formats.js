// Names of the audio formats by their names in the API.

export const FORMATS = { wav: "WAV", mp3: "MP3", opus: "Opus", aac: "AAC", flac: "FLAC", pcm: "PCM (raw)" };

const EXTENSIONS = { opus: "ogg" };

export const fileName = (stem, format) => `${stem}.${EXTENSIONS[format] ?? format}`;
