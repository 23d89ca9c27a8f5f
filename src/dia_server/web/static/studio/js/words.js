// What the server says to programs, said to people: with the page's names of things, and without routes.

/** Fields of requests by the names that the page has for them. */
export const LABELS = {
  audio_file: "The file",
  prompt_id: "The name",
  voice_id: "The name",
  transcript: "The transcript",
  text: "The text",
  save_outputs: "Keep what is made",
  output_retention_hours: "Keep it for hours",
  auto_discover_prompts: "Look for new recordings at start",
  auto_transcribe: "Let Whisper transcribe new recordings",
  whisper_model_size: "Whisper",
  show_prompts: "Write texts to the log",
  debug_mode: "Log in detail",
  gpu_mode: "GPUs",
  worker_count: "Models at the same time",
  torch_compile_enabled: "Compile the model",
};

/** What the guard heard in a result and could not get better. */
export const FAULTS = {
  too_short: "words may be missing",
  too_long: "longer than its text",
  clipped: "distorted",
  silent: "a long silence",
  cut_off: "the end may be cut off",
  misheard: "some words are unclear",
};

const WORDINGS = [
  [/\s*[;(]\s*(?:GET|POST|PUT|DELETE) \/.*$/, ""], // how to go on with the API
  [/^(\w+)(?=:| must| holds)/, (name) => LABELS[name] ?? name],
  [/\baudio prompt\b/g, "recording"],
  [/^Audio prompt\b/, "The recording"],
  [/\bvoice prompt\b/g, "recording"],
  [/\bvoice mappings\b/g, "voices"],
  [/Expected `int` <= (\d+)/, "at most $1"],
  [/Expected `int` >= (\d+)/, "at least $1"],
  [/Expected `int`, got `\w+`/, "a whole number is needed"],
];

export const plain = (detail) => WORDINGS.reduce((words, [wording, better]) => words.replace(wording, better), detail);
