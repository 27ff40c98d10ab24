"""`meshlib run`: a program joins the mesh without a change of its code.

The command puts a `sitecustomize` before the program's path (`launch`). In the program it waits for the libraries it
knows to be imported (`imports`) and then puts the mesh of the environment (`process`) under their clients and servers
(`httpx_clients`, `grpc_channels`, `servers`). What the program does not import is not imported for it.
"""
