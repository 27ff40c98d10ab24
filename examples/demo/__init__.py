"""The canary story, live: a control plane, three FastAPI services, a client under load, and everything going wrong.

    make demo

What is where: `conf/` the configuration it edits; `services.py` the services; `load.py` the calls; `acts.py` the
story; `dashboard.py` and `plain.py` what you see; `promises.py` what is held against it; `stage.py`, `processes.py` and
`config_folder.py` what it stands on.
"""
