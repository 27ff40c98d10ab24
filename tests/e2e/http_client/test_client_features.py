"""What users of httpx rely on: cookies, redirects, auth, hooks, extensions, URLs; each with a meshed service behind."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Generator
from typing import Any

import pytest

from e2e.http_client.doors import Door
from meshlib import Mesh
from meshlib.context import CallContext, current
from parts.fast_backend import FastBackend, Reply, Request

Static = Callable[..., Mesh]
Fast = Callable[..., FastBackend]


# ---------------------------------------------------------------------- cookies


def test_cookies_are_kept_and_sent_back_to_the_service_that_set_them(
    door: Door, static: Static, fast_backend: Fast
) -> None:
    backend = fast_backend("payments", lambda request: Reply(headers=(("set-cookie", "session=abc; Path=/"),)))
    other = fast_backend("orders")
    client = door.client(static({"payments": [backend.address], "orders": [other.address]}))
    client.get("/")
    client.get("/again", headers={"x-more": "1"})
    client.get("http://orders/")
    assert [request.header("cookie") for request in backend.requests] == [None, "session=abc"]
    assert other.requests[0].header("cookie") is None
    assert client.client.cookies["session"] == "abc"


def test_cookies_given_by_the_caller(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend()
    client = door.client(static({"payments": [backend.address]}), cookies={"a": "1"})
    client.get("/")
    assert backend.requests[0].header("cookie") == "a=1"


def test_several_cookies_of_one_response_stay_apart(door: Door, static: Static, fast_backend: Fast) -> None:
    two = Reply(headers=(("set-cookie", "a=1"), ("set-cookie", "b=2; Expires=Wed, 01 Jan 2098 00:00:00 GMT")))
    client = door.client(static({"payments": [fast_backend("b", two).address]}))
    response = client.get("/")
    assert response.cookies == {"a": "1", "b": "2"}
    assert len(response.headers.get_list("set-cookie")) == 2


# ---------------------------------------------------------------------- redirects


def redirecting(request: Request) -> Reply:
    number = int(request.target.removeprefix("/"))
    return Reply() if number == 0 else Reply(302, b"", (("location", f"/{number - 1}"),))


def test_redirects_are_the_callers_choice(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("b", redirecting)
    client = door.client(static({"payments": [backend.address]}))
    first = client.get("/3")
    assert (first.status_code, first.next_request.url.path) == (302, "/2")
    last = client.get("/3", follow_redirects=True)
    assert last.status_code == 200
    assert [str(response.url) for response in last.history] == [f"http://payments/{n}" for n in (3, 2, 1)]


def test_a_redirect_to_another_service_is_routed_anew(door: Door, static: Static, fast_backend: Fast) -> None:
    orders = fast_backend("orders")
    payments = fast_backend("payments", Reply(307, b"", (("location", "http://orders/take?x=1"),)))
    mesh = static({"payments": [payments.address], "orders": [orders.address]})
    client = door.client(mesh, follow_redirects=True, headers={"Authorization": "Bearer secret"})
    response = client.post("/give", content=b"the body")
    echo = response.json()
    assert (echo["name"], echo["method"], echo["path"], echo["body"]) == ("orders", "POST", "/take", "the body")
    assert orders.requests[0].header("host") == "orders"
    assert orders.requests[0].header("authorization") is None, "httpx takes credentials off at another host"
    assert response.extensions["meshlib"].cluster == "orders"


def test_redirects_without_end_are_httpxs_error(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("b", Reply(302, b"", (("location", "/"),)))
    client = door.client(static({"payments": [backend.address]}), follow_redirects=True, max_redirects=5)
    with pytest.raises(door.error("TooManyRedirects")):
        client.get("/")
    assert backend.count == 6


# ---------------------------------------------------------------------- auth


def guarded(request: Request) -> Reply:
    expected = "Basic " + base64.b64encode(b"me:pass").decode()
    return Reply() if request.header("authorization") == expected else Reply(401)


def test_basic_auth(door: Door, static: Static, fast_backend: Fast) -> None:
    client = door.client(static({"payments": [fast_backend("b", guarded).address]}))
    assert client.get("/").status_code == 401
    assert client.get("/", auth=("me", "pass")).status_code == 200
    assert client.get("http://me:pass@payments/").status_code == 200


def digest_guarded(request: Request) -> Reply:
    given = request.header("authorization")
    if given is None:
        challenge = 'Digest realm="r", nonce="n0nce", qop="auth", algorithm=MD5'
        return Reply(401, b"first", (("www-authenticate", challenge),))
    part = dict(re.findall(r'(\w+)="?([^",]+)"?', given))

    def md5(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    wanted = md5(
        f"{md5('me:r:pass')}:n0nce:{part['nc']}:{part['cnonce']}:auth:{md5(f'{request.method}:{request.target}')}"
    )
    return Reply() if part["response"] == wanted else Reply(403)


def test_digest_auth(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("b", digest_guarded)
    client = door.client(static({"payments": [backend.address]}), auth=door.library.DigestAuth("me", "pass"))
    response = client.post("/pay?x=1", content=b"amount")
    assert response.status_code == 200
    assert response.json()["body"] == "amount"
    assert (backend.count, backend.connections_made) == (2, 1)


def test_an_auth_flow_that_reads_responses(door: Door, static: Static, fast_backend: Fast) -> None:
    """The flow fetches a token from another meshed service before, and again when the token is refused."""
    tokens = iter(["stale", "fresh"])
    issuer = fast_backend("issuer", lambda request: Reply(200, next(tokens).encode()))
    service = fast_backend("b", lambda r: Reply(200 if r.header("authorization") == "Bearer fresh" else 401))

    class TokenAuth(door.library.Auth):  # type: ignore[misc, name-defined]
        requires_response_body = True

        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            response = None
            while response is None or response.status_code == 401:
                token = yield door.library.Request("POST", "http://issuer/token")
                request.headers["Authorization"] = f"Bearer {token.text}"
                response = yield request

    mesh = static({"payments": [service.address], "issuer": [issuer.address]})
    response = door.client(mesh).get("/", auth=TokenAuth())
    assert response.status_code == 200
    assert (issuer.count, service.count) == (2, 2)


# ---------------------------------------------------------------------- event hooks, extensions


def test_event_hooks_see_every_request_and_response(door: Door, static: Static, fast_backend: Fast) -> None:
    seen: list[str] = []

    def stamp(request: Any) -> None:
        request.headers["x-stamp"] = "hooked"
        seen.append(f"> {request.url.path}")

    def look(response: Any) -> None:
        seen.append(f"< {response.status_code} {response.extensions['meshlib'].cluster}")

    backend = fast_backend("b", redirecting)
    hooks = {"request": [door.hook(stamp)], "response": [door.hook(look)]}
    client = door.client(static({"payments": [backend.address]}), event_hooks=hooks, follow_redirects=True)
    client.get("/1")
    assert seen == ["> /1", "< 302 payments", "> /0", "< 200 payments"]
    assert {request.header("x-stamp") for request in backend.requests} == {"hooked"}


def test_a_response_hook_may_raise(door: Door, static: Static, fast_backend: Fast) -> None:
    def check(response: Any) -> None:
        response.raise_for_status()

    client = door.client(
        static({"payments": [fast_backend("b", Reply(500)).address]}), event_hooks={"response": [door.hook(check)]}
    )
    with pytest.raises(door.error("HTTPStatusError")):
        client.get("/")


def test_response_extensions(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("b", Reply(201))
    extensions = door.client(static({"payments": [backend.address]})).get("/").extensions
    assert extensions["http_version"] == b"HTTP/1.1"
    assert extensions["reason_phrase"] == b"Created"
    network = extensions["network_stream"]
    assert network.get_extra_info("server_addr") == (backend.host, backend.port)
    assert network.get_extra_info("client_addr")[0] == backend.host
    assert network.get_extra_info("ssl_object") is None
    info = extensions["meshlib"]
    assert (info.virtual_host, info.cluster, info.endpoint) == ("payments", "payments", backend.address)
    assert (info.attempts, info.flag) == (1, None)


def test_the_target_extension_takes_the_place_of_the_path(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("payments")
    door.client(static({"payments": [backend.address]})).get("/x", extensions={"target": b"/other?a=%7e"})
    assert [request.target for request in backend.requests] == ["/other?a=%7e"]


def test_what_a_response_says_of_itself(door: Door, static: Static, fast_backend: Fast) -> None:
    client = door.client(static({"payments": [fast_backend("b", Reply(404)).address]}))
    response = client.get("/nothing")
    assert (response.http_version, response.reason_phrase) == ("HTTP/1.1", "Not Found")
    assert str(response.url) == "http://payments/nothing"
    assert response.elapsed.total_seconds() > 0
    assert response.num_bytes_downloaded == len(response.content)
    with pytest.raises(door.error("HTTPStatusError")) as failed:
        response.raise_for_status()
    assert failed.value.response is response


# ---------------------------------------------------------------------- URLs and hosts


def test_base_url_params_and_the_raw_path(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend()
    client = door.client(static({"payments": [backend.address]}), base_url="http://payments/v1", params={"a": "1"})
    client.get("charge")
    client.get("/a%2Fb c", params={"q": "ü&="})
    assert [request.target for request in backend.requests] == [
        "/v1/charge?a=1",
        "/v1/a%2Fb%20c?a=1&q=%C3%BC%26%3D",
    ]


@pytest.mark.parametrize("host", ["payments", "payments:80", "payments:8080", "PAYMENTS"])
def test_a_service_answers_to_its_name_whatever_the_port(
    door: Door, static: Static, fast_backend: Fast, host: str
) -> None:
    backend = fast_backend()
    response = door.client(static({"payments": [backend.address]})).get(f"http://{host}/")
    assert response.json()["name"] == "backend"
    assert backend.requests[0].header("host") == host.lower().removesuffix(":80")


def test_a_service_may_be_named_by_its_url(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend()
    client = door.client(static({"payments": [backend.address]}), "http://payments:8080/api/")
    assert client.get("x").json()["path"] == "/api/x"


def test_the_host_header_says_who_is_meant(door: Door, static: Static, fast_backend: Fast) -> None:
    payments, orders = fast_backend("payments"), fast_backend("orders")
    client = door.client(static({"payments": [payments.address], "orders": [orders.address]}))
    echo = client.get("/", headers={"Host": "orders"}).json()
    assert echo["name"] == "orders"
    assert orders.requests[0].header("host") == "orders"


def test_headers_arrive_as_they_were_given(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend()
    pairs = [("X-Twice", "one"), ("X-Twice", "two"), ("X-Latin", "Grüße".encode("latin-1"))]
    door.client(static({"payments": [backend.address]})).get("/", headers=pairs)
    sent = backend.requests[0]
    assert [value for name, value in sent.headers if name == "x-twice"] == ["one", "two"]
    assert sent.header("x-latin") == "Grüße"
    assert sent.header("user-agent", "").startswith("python-httpx")


def test_unknown_hosts_pass_through(door: Door, static: Static, fast_backend: Fast) -> None:
    inside, outside = fast_backend("inside"), fast_backend("outside")
    client = door.client(static({"payments": [inside.address]}))
    response = client.get(f"{outside.url}/x")
    assert response.json()["name"] == "outside"
    assert "meshlib" not in response.extensions


def test_unknown_hosts_are_rejected_when_told_so(door: Door, static: Static, fast_backend: Fast) -> None:
    outside = fast_backend("outside")
    client = door.client(static({"payments": [outside.address]}, unknown_hosts="reject"))
    with pytest.raises(door.error("TransportError"), match="NR: no virtual host"):
        client.get(outside.url)
    assert outside.count == 0


def test_a_fallback_of_the_callers_own(door: Door, static: Static, fast_backend: Fast) -> None:
    asked: list[str] = []

    def answer(request: Any) -> Any:
        asked.append(request.url.host)
        return door.library.Response(200, text="from the fallback")

    fallback = door.library.MockTransport(answer)
    client = door.own_client(static({"payments": [fast_backend().address]}), fallback=fallback)
    assert client.get("http://elsewhere.example/").text == "from the fallback"
    assert client.get("http://payments/").json()["name"] == "backend"
    assert asked == ["elsewhere.example"]


def test_the_transport_may_be_mounted_beside_others(door: Door, static: Static, fast_backend: Fast) -> None:
    mesh, backend = static({"payments": [fast_backend().address]}), fast_backend("outside")
    transport = (
        mesh.http.async_transport(library=door.name) if door.asynchronous else mesh.http.transport(library=door.name)
    )
    client = door.own_client(static({}, unknown_hosts="reject"), mounts={"all://payments": transport})
    assert client.get("http://payments/").status_code == 200
    with pytest.raises(door.error("TransportError")):
        client.get(backend.url)


def test_the_context_of_an_incoming_request_goes_along(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend()
    client = door.client(static({"payments": [backend.address]}))
    token = current.set(CallContext(headers=((b"x-request-id", b"outer"), (b"traceparent", b"00-1-2-01"))))
    try:
        client.get("/")
        client.get("/", headers={"X-Request-Id": "mine"})
    finally:
        current.reset(token)
    ids = [[v for n, v in request.headers if n == "x-request-id"] for request in backend.requests]
    assert ids == [["outer"], ["mine"]]
    assert backend.requests[0].header("traceparent") == "00-1-2-01"
