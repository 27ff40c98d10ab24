"""OpenTelemetry: spans and metrics of a mesh by its API, and by its SDK where that is what the application runs."""
