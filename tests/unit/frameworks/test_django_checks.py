"""`manage.py check`: what is said before a request is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage

OURS = "meshlib.integrations.django.MeshMiddleware"
COMMON = "django.middleware.common.CommonMiddleware"
STATIC = {"STATIC": {"payments": ["127.0.0.1:1"]}}
pytestmark = pytest.mark.usefixtures("configured")


def checked() -> list[CheckMessage]:
    """By Django's own registry, where the app has put the checks."""
    from django.core.checks import run_checks

    return list(run_checks(tags=["meshlib"]))


def ids() -> list[str]:
    return [str(message.id) for message in checked()]


def test_good_settings_have_nothing_said_about_them() -> None:
    assert checked() == []


@pytest.mark.parametrize(
    "given, words, hint",
    [
        (None, "there is no MESHLIB in the settings", None),
        (["conf/"], "MESHLIB is a list, not a dictionary", None),
        (
            {**STATIC, "DRAIN_SECOND": 1},
            "MESHLIB['DRAIN_SECOND']: there is no such setting",
            "did you mean DRAIN_SECONDS?",
        ),
        (
            {**STATIC, "DRAIN_SECONDS": "1"},
            "MESHLIB['DRAIN_SECONDS']: '1' is a str that cannot be used",
            "give seconds, 0 or more",
        ),
        ({}, "nothing says where configuration comes from", "set one of CONFIG, XDS, CONSUL, STATIC, MESH"),
    ],
)
def test_wrong_settings(given: Any, words: str, hint: str | None, configured: Any) -> None:
    configured(MESHLIB=given)
    (message,) = checked()
    assert (message.id, message.level) == ("meshlib.E001", 40)
    assert words in message.msg
    assert message.hint == hint


def test_wrong_files_are_told_with_resource_field_and_reason(configured: Any, tmp_path: Path) -> None:
    file = tmp_path / "payments.yaml"
    file.write_text("name: payments\nconnect_timeout: soon\n")
    configured(MESHLIB={"CONFIG": tmp_path})
    messages = checked()
    assert {message.id for message in messages} == {"meshlib.E002"}
    assert messages[0].msg.startswith(f"{file}:")
    assert "connect_timeout" in messages[0].msg


def test_files_that_are_not_there(configured: Any, tmp_path: Path) -> None:
    configured(MESHLIB={"CONFIG": tmp_path / "missing"})
    (message,) = checked()
    assert message.id == "meshlib.E002"
    assert "missing" in message.msg


def test_what_is_not_applied_is_a_warning(configured: Any, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "name: payments\nupstream_connection_options: {tcp_keepalive: {}}\nload_assignment: {cluster_name: payments}\n"
    )
    configured(MESHLIB={"CONFIG": str(tmp_path)})
    assert set(ids()) == {"meshlib.W001"}


@pytest.mark.parametrize(
    "order, found",
    [
        ([OURS, COMMON], []),
        (["django.middleware.security.SecurityMiddleware", OURS, COMMON], []),
        ([COMMON], ["meshlib.W002"]),
        ([COMMON, OURS], ["meshlib.W003"]),
    ],
)
def test_the_order_of_the_middleware(order: list[str], found: list[str], configured: Any) -> None:
    configured(MIDDLEWARE=order)
    assert ids() == found


class SyncOnly:
    """As middleware was before Django 3.1."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response


def test_sync_middleware_in_an_async_server(configured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import django.middleware.common

    monkeypatch.setattr(django.middleware.common, "SyncOnly", SyncOnly, raising=False)
    order = [OURS, "django.middleware.common.SyncOnly", COMMON, "no.such.Middleware"]
    configured(MIDDLEWARE=order)
    assert ids() == [], "WSGI has no such switch"
    configured(ASGI_APPLICATION="shop.asgi.application")
    (message,) = checked()
    assert message.id == "meshlib.W004"
    assert message.msg.startswith("django.middleware.common.SyncOnly is sync only")
