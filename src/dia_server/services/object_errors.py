"""Names the causes of obstore's errors, whose texts may contain signed URLs and ids of keys."""

import re

CODE = re.compile(r"<Code>(\w+)</Code>")
"""Code in the answer of S3 and Azure, such as NoSuchBucket."""
STATUS = re.compile(r"status code: (\d{3}[ A-Za-z]*)")
SYSTEM = re.compile(r'kind: \w+,\s+message: "([^"]+)"')
"""Message of an error of the operating system."""
KIND = re.compile(r"(?:source|kind): (\w+),")
"""Name of any other cause, such as MissingAccount."""


def explain(error: Exception) -> str:
    """Return the cause in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    patterns = (CODE, STATUS, SYSTEM, KIND)
    found = next((match[1] for pattern in patterns if (match := pattern.search(text))), None)
    return type(error).__name__ if found is None else found.strip()
