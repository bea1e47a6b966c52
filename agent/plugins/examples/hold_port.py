#!/usr/bin/env python3
"""A holder: keeps a TCP port busy, so that the service that wants it cannot start."""

import signal
import socket

import backburn_plugin as plugin

DESCRIPTION = {
    "name": "hold-port",
    "summary": "Keep a TCP port busy",
    "kind": "holder",
    "schema": {
        "type": "object",
        "additionalProperties": False,
        "required": ["port"],
        "properties": {"port": {"type": "integer", "minimum": 1, "maximum": 65535, "description": "The port."}},
    },
    "example": {"port": 18080},
    "capabilities": ["CAP_NET_BIND_SERVICE"],
}


def plan(request):
    port = request["arguments"]["port"]
    if port in request["protected"]["ports"]:
        raise plugin.Refused(f"port {port} is protected by the policy", hint="choose another port")
    return plugin.changes(
        plugin.change(
            data={"port": port},
            holds=[f"port:{port}"],
            effect={"look": "tcp-listens", "port": port},
            apply=f"listen on port {port} and answer nobody",
            undo="kill the process that listens",
            if_agent_dies="the kernel kills it with the agent",
        )
    )


def hold(data, request):
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", data["port"]))
        listener.listen()
        plugin.ready(f"listening on port {data['port']}")
        signal.pause()


plugin.main(DESCRIPTION, plan=plan, hold=hold)
