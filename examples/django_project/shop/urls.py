"""The paths of the shop."""

from __future__ import annotations

from django.urls import path

from shop import views

urlpatterns = [
    path("checkout", views.checkout),
    path("checkout-async", views.checkout_async),
    path("receipts", views.receipts),
]
