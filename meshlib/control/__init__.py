"""The embedded control plane: serves xDS (ADS, state of the world and delta) from the same resources meshlib reads."""
