"""The canary story, live: a control plane, three FastAPI services and a gRPC one, all on mutual TLS, a client under
load, and everything going wrong.

    make demo

What is where: `conf/` the configuration it edits; `services.py` and `receipts.py` the services; `load.py` and
`load_grpc.py` the calls; `story.py`, `acts.py` and `acts_mtls.py` the story; `dashboard.py` and `plain.py` what you
see; `promises.py` what is held against it; `certificates.py` who is who; `stage.py`, `direct.py`, `processes.py` and
`config_folder.py` what it stands on.
"""
