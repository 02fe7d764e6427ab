"""A server process with the tests' methods: `python server_script.py ROOT [SETTING=VALUE …]`."""

from __future__ import annotations

import sys
from contextlib import ExitStack

import service_methods

from pickaxe import catalog
from pickaxe_services import Settings, serve

with ExitStack() as stack:
    for name, (kind, role) in service_methods.METHODS.items():
        stack.enter_context(catalog.register(kind, name, role))
    given = dict(pair.split("=", 1) for pair in sys.argv[2:])
    serve(Settings.model_validate({"port": 0, "root": sys.argv[1], **given}))
