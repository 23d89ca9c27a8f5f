"""Default security headers of responses; pages may replace Content-Security-Policy."""

POLICY = {
    "default-src": "'self'",  # no inline scripts or styles, nothing from other hosts
    "media-src": "'self' blob:",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}


def policy(**directives: str) -> str:
    """Return POLICY as a header value, with `directives`, such as `style_src`, added or replaced."""
    others = {name.replace("_", "-"): sources for name, sources in directives.items()}
    return "; ".join(f"{name} {sources}" for name, sources in (POLICY | others).items())


# no Cross-Origin-Resource-Policy: it would block <audio src> on pages of allowed origins
SECURITY_HEADERS = {
    "Content-Security-Policy": policy(),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
