"""Istio's networking objects → the Envoy resources istiod would send (facts: istio/istio pilot/pkg/networking/core)."""
