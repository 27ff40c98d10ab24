"""Files as configuration: Envoy-format YAML and JSON, and Istio resources, located, validated, watched."""
