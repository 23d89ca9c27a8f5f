// The server's field names, faults and errors in words for users.

/** Labels of request fields by field name. */
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

/** Descriptions of faults that remained after all retries, by fault name. */
export const FAULTS = {
  too_short: "words may be missing",
  too_long: "longer than its text",
  clipped: "distorted",
  silent: "a long silence",
  cut_off: "the end may be cut off",
  misheard: "some words are unclear",
};

/** Texts for errors by error code; for other codes the server's text is shown. */
const REFUSALS = {
  AUDIO_PROMPT_NOT_USABLE: () =>
    "This voice cannot speak: its recording is missing or has changed, or its transcript is missing or not confirmed. Correct it under Voices.",
  AUDIO_PROCESSING_ERROR: ({ param, detail }) =>
    (param === "audio_file" ? `The recording cannot be used. The server says: ${detail}` : detail),
  INVALID_VOICE_ID: () => "This voice does not exist any more. Choose another one.",
  PAYLOAD_TOO_LARGE: ({ limit }) => `Too large: the limit is ${limit / 2 ** 20} MiB.`,
  TEXT_TOO_LONG: ({ limit, detail }) => (limit ? `The text is too long: the limit is ${limit} characters.` : detail),
  VALIDATION_ERROR: ({ param, limit, detail }) => {
    if (param === undefined) return detail;
    const label = LABELS[param] ?? param;
    return limit === undefined ? `${label} is not valid. The server says: ${detail}` : `${label}: the limit is ${limit}.`;
  },
};

/** Return the text to show for an error body; undefined if the body has none. */
export const explain = (error) => REFUSALS[error.error_code]?.(error) ?? error.detail;
