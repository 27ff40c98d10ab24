"""Our TLS around gRPC's connections.

grpcio's own TLS cannot do what a mesh asks of it. Its clients check a host name against DNS names, and against the
common name where there are none; they cannot check a SPIFFE ID (nor leave a name unchecked). Its servers cannot refuse
a client by its ID before a call, and keep a connection whatever becomes of the authority that vouched for its peer.

So gRPC talks plain HTTP/2 over a Unix socket that only this process can reach, and a thread carries the bytes from
there to the TLS of `meshlib.identity`, which both ends of every other protocol use as well.
"""
