"""Writes timestamps as subtitles: SubRip (SRT) and WebVTT."""

from collections.abc import Sequence

from dia_server.services.speech.timestamps import Timestamp

ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def srt(timestamps: Sequence[Timestamp]) -> str:
    """Return a SubRip file with one cue per timestamp."""
    cues = (
        f"{number}\n{_clock(one.start, ',')} --> {_clock(_end(one), ',')}\n{one.text}\n\n"
        for number, one in enumerate(timestamps, 1)
    )
    return "".join(cues)


def vtt(timestamps: Sequence[Timestamp]) -> str:
    """Return a WebVTT file with one cue per timestamp, which names its voice if one voice says it."""
    cues = []
    for one in timestamps:
        text = one.text.translate(ESCAPES)
        said = text if one.voice is None else f"<v {one.voice}>{text}</v>"
        cues.append(f"{_clock(one.start, '.')} --> {_clock(_end(one), '.')}\n{said}\n\n")
    return "WEBVTT\n\n" + "".join(cues)


def _end(one: Timestamp) -> float:
    """Return the end of a cue; players refuse cues without a duration."""
    return max(one.end, one.start + 0.001)


def _clock(seconds: float, point: str) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{milliseconds:03}"
