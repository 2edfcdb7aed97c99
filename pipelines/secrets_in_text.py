"""What a secret looks like: by its name, and by its value."""

import re

WORDS = ("password", "passwd", "passphrase", "pwd", "token", "secret", "credential")
KEYS = ("api", "access", "private", "secret", "account", "encryption", "signing")
# The last words of a name say what it holds: `db_password` and `clientSecret` are secrets, `token_count` is none.
NAME = re.compile(rf"(^|[_. -])(({'|'.join(WORDS)})s?|({'|'.join(KEYS)})[_. -]?keys?([_. -]?id)?)$")
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

VALUES = {
    "an address with a password": re.compile(r"[a-z][a-z0-9+.-]*://[^\s/:@'\"]*:[^\s/@'\"]+@", re.IGNORECASE),
    "a signed address": re.compile(r"[?&](sig|X-Amz-Signature|[a-z_-]*(token|password|secret))=[^\s&]+", re.IGNORECASE),
    "a password in a connection string": re.compile(r"\b(password|passwd|pwd)=[^\s'\"(){},;&]+", re.IGNORECASE),
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----"),
    "a JSON web token": re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
    "a GitHub token": re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{60,})"),
}


def secret_name(name: str) -> bool:
    """Tell whether a name says that its value is a secret, such as `db_password` or `apiKey`."""
    return NAME.search(CAMEL.sub("_", name).lower()) is not None


def secret_in(text: str) -> str:
    """Return what kind of secret a text holds, by the form that its issuer gives it; empty: none that is known."""
    return next((kind for kind, form in VALUES.items() if form.search(text)), "")
