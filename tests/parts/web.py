"""One plain HTTP request to a server of ours, whatever proxy the machine's environment names."""

import urllib.request

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url: str, data: bytes | None = None, method: str | None = None, timeout: float = 10.0) -> bytes:
    """The body of the answer; urllib's HTTPError from status 400 on."""
    request = urllib.request.Request(url, data, method=method)  # noqa: S310 - only http URLs of our own servers come here
    with _opener.open(request, timeout=timeout) as answer:
        body: bytes = answer.read()
    return body
