"""What the mesh finds out about endpoints by itself, beside the calls to them, on a thread of its own."""
