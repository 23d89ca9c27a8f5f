"""Units that several layers share: audio rates of Dia and its codec, and byte sizes."""

SAMPLE_RATE = 44_100
"""Sample rate in Hz of all audio that enters or leaves an engine."""

HOP = 512
"""Samples per codec frame (the codec's hop length)."""

FRAME_RATE = SAMPLE_RATE / HOP
"""Codec frames per second of audio, about 86.1; a decode step generates about one frame."""

MIB = 2**20
"""Bytes per mebibyte."""

GIB = 2**30
"""Bytes per gibibyte."""
