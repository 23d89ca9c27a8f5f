"""Headers that keep browsers from doing more with an answer than it is for."""

POLICY = {
    "default-src": "'self'",  # no inline script or style, nothing from another host
    "media-src": "'self' blob:",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}


def policy(**directives: str) -> str:
    """Return a Content-Security-Policy, with other sources for the `directives` (`style_src`)."""
    others = {name.replace("_", "-"): sources for name, sources in directives.items()}
    return "; ".join(f"{name} {sources}" for name, sources in (POLICY | others).items())


# no Cross-Origin-Resource-Policy: pages of allowed origins play audio with <audio src>
SECURITY_HEADERS = {
    "Content-Security-Policy": policy(),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
