"""The result of the comparison: its numbers, its verdict and its table."""

from collections.abc import Iterator
from typing import Literal

import msgspec

CLOSE_KL, WORSE_KL = 0.01, 0.1
"""Mean KL divergence in nats of the worst channel up to which a dtype is close, and above which it is worse.

By Pinsker's inequality, at most sqrt(KL / 2) of the sampled tokens can differ: 7 % and 22 %. That these are
the right limits is our own judgement: nobody has listened.
"""
CLOSE_P99, WORSE_P99 = 0.1, 1.0
"""The same for the 99th percentile of the columns."""
CLOSE_LEFT_OUT, WORSE_LEFT_OUT = 0.02, 0.1
"""The same for the probability of the tokens that are no candidates any more."""
CLOSE_WORDS, WORSE_WORDS = 2.0, 5.0
"""The same for the additional wrong words per hundred. With 50 texts, 751 words, chance alone makes a
difference of 1 to 2."""

Grade = Literal["close", "listen", "worse", "none"]
"""`close`: no measure suggests an audible difference. `listen`: one may be audible. `worse`: expect one.
`none`: the weights are untrained, so there is no quality to lose."""

ADVICE: dict[Grade, str] = {
    "close": "no number suggests that you would hear a difference",
    "listen": "a difference may be audible: listen before you use it",
    "worse": "expect an audible loss",
    "none": "the weights are untrained, so there is no quality to judge",
}


class Channel(msgspec.Struct, frozen=True):
    """Deviations of one channel, over the columns that were sampled."""

    channel: int
    columns: int
    mean_kl: float
    """Nats."""
    p99_kl: float
    """Nats."""
    argmax_agreement: float
    """Share of the columns, 0 to 1."""
    left_out: float
    """Mean probability in fp32 of tokens that are no candidates any more, 0 to 1."""


class Ends(msgspec.Struct, frozen=True):
    """Ends of speech in free runs with the same seeds."""

    median_frames: float
    """Median of the absolute differences."""
    p90_frames: float
    reference_reached_limit: int
    """Texts whose end was forced with fp32."""
    reached_limit: int
    """Texts whose end was forced with the dtype that is compared."""


class Words(msgspec.Struct, frozen=True):
    """Wrong words per hundred, as Whisper hears the free runs."""

    whisper: str
    reference: float
    compared: float


class Verdict(msgspec.Struct, frozen=True):
    grade: Grade
    advice: str
    reasons: list[str]
    """What exceeds a limit, in words; empty if nothing does."""


class Report(msgspec.Struct, frozen=True):
    model: str
    device: str
    reference: str
    dtype: str
    texts: int
    temperature: float
    cfg_scale: float
    channels: list[Channel]
    ends: Ends
    words: Words | None
    verdict: Verdict


def judge(channels: list[Channel], words: Words | None, *, untrained: bool) -> Verdict:
    """Return the verdict: that of the measure that is furthest beyond its limits."""
    if untrained:
        return Verdict("none", ADVICE["none"], ["all weights of the norms are 1"])
    measures = [
        ("mean KL divergence in nats", max(one.mean_kl for one in channels), CLOSE_KL, WORSE_KL),
        ("p99 KL divergence in nats", max(one.p99_kl for one in channels), CLOSE_P99, WORSE_P99),
        ("probability left out", max(one.left_out for one in channels), CLOSE_LEFT_OUT, WORSE_LEFT_OUT),
    ]
    if words is not None:
        more = words.compared - words.reference
        measures.append(("additional wrong words per hundred", more, CLOSE_WORDS, WORSE_WORDS))
    grade: Grade = "close"
    reasons = []
    for name, value, close, worse in measures:
        if value > close:
            limit = worse if value > worse else close
            reasons.append(f"{name}: {value:.3g}, above {limit:g}")
            grade = "worse" if value > worse or grade == "worse" else "listen"
    return Verdict(grade, ADVICE[grade], reasons)


def table(report: Report) -> Iterator[str]:
    """Yield the lines of the report for people."""
    yield (
        f"{report.dtype} against {report.reference}: {report.model} on {report.device}, "
        f"{report.texts} text{'s' if report.texts > 1 else ''}"
    )
    columns = "{:>7} {:>8} {:>9} {:>9} {:>14} {:>9}"
    yield columns.format("channel", "columns", "KL mean", "KL p99", "argmax agrees", "left out")
    for one in report.channels:
        yield columns.format(
            one.channel,
            one.columns,
            f"{one.mean_kl:.2g}",
            f"{one.p99_kl:.2g}",
            f"{100 * one.argmax_agreement:.2f} %",
            f"{100 * one.left_out:.2f} %",
        )
    ends = report.ends
    yield f"End of speech: moved by {ends.median_frames:g} frames (median), {ends.p90_frames:g} (p90)"
    yield (
        f"Texts that did not end by themselves: {ends.reference_reached_limit} with {report.reference}, "
        f"{ends.reached_limit} with {report.dtype}"
    )
    if (words := report.words) is not None:
        yield (
            f"Words wrong per hundred ({words.whisper}): {words.reference:.1f} with {report.reference}, "
            f"{words.compared:.1f} with {report.dtype}"
        )
    yield f"Verdict: {report.verdict.grade}: {report.verdict.advice}"
    yield from (f"  {reason}" for reason in report.verdict.reasons)
