"""What a running process tells about itself, to those who may open its admin socket."""
