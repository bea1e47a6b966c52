"""A mail server (aiosmtpd): `mail_server.py MODE CERTIFICATE KEY`. Prints its port, and each message that it takes as a line of JSON.

MODE is `starttls` (AUTH by PLAIN or LOGIN), `login` (AUTH by LOGIN only), `tls`, `plain` or `no-starttls`. The user is `ada`, the
password `s3cret`.
"""

import asyncio
import json
import ssl
import sys
from email import message_from_bytes, policy

from aiosmtpd.smtp import SMTP, AuthResult

mode, certificate, key = sys.argv[1:4]


class Keep:
    async def handle_DATA(self, server, session, envelope):
        message = message_from_bytes(envelope.original_content, policy=policy.default)
        print(json.dumps({
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "subject": message["Subject"],
            "id": message["Message-ID"],
            "headers": sorted(message.keys()),
            "text": message.get_content(),
            "secure": session.ssl is not None or mode == "tls",
            "authenticated": session.authenticated,
        }), flush=True)
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    return AuthResult(success=data.login == b"ada" and data.password == b"s3cret", handled=False)


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
options = {}
if mode in ("starttls", "login"):
    options = {"tls_context": context, "require_starttls": True, "auth_required": True, "authenticator": authenticate}
    if mode == "login":
        options["auth_exclude_mechanism"] = ["PLAIN"]


async def serve():
    loop = asyncio.get_running_loop()
    secure = context if mode == "tls" else None
    server = await loop.create_server(lambda: SMTP(Keep(), **options), "127.0.0.1", 0, ssl=secure)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(serve())
