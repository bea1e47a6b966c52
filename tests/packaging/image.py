"""Assembles an image for `docker load` and `podman load` from the files of a package, without an engine.

usage: image.py PACKAGE STAGE VERSION OUT

The image has the program, the C library that it is linked with, and the certificates of public authorities; no shell. The same files give the same
bytes. Its manifest and configuration are Docker's, since a health check has no place in OCI's; the archive is an OCI layout, whose layers may be
compressed (`podman load`; `docker load` from Docker 25 on).
"""

import datetime
import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile

MOMENT = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
CERTIFICATES = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")

CONFIGS = {
    "backburn": {
        "User": "65532:65532",
        "Entrypoint": ["/usr/bin/backburn"],
        "Cmd": ["controller", "--data", "/data", "--listen", "0.0.0.0:7420"],
        "Env": ["PATH=/usr/bin", "HOME=/data"],
        "ExposedPorts": {"7420/tcp": {}},
        "Volumes": {"/data": {}},
        "WorkingDir": "/data",
        "StopSignal": "SIGTERM",
        # It answers without a token: whether the program runs at all.
        "Healthcheck": {"Test": ["CMD", "/usr/bin/backburn", "--version"], "Interval": 30_000_000_000, "Timeout": 5_000_000_000},
    },
    # The agent harms hosts, so it is root; what it may do is up to whoever starts it.
    "backburn-agent": {
        "User": "0:0",
        "Entrypoint": ["/usr/bin/backburn-agent"],
        "Cmd": ["connect", "--state", "/state"],
        "Env": ["PATH=/usr/bin"],
        "Volumes": {"/state": {}},
        "StopSignal": "SIGTERM",
    },
}


def libraries(program):
    """The shared libraries of a program, and those that name look-ups load later: their names, and their files on this host."""
    listed = subprocess.run(["ldd", program], check=True, stdout=subprocess.PIPE, text=True).stdout
    found = dict(re.findall(r"(\S+) => (/\S+)", listed))
    loader = re.search(r"(/\S*ld-linux\S*)", listed)
    files = {f"/lib/x86_64-linux-gnu/{name}": path for name, path in found.items()}
    files[loader.group(1)] = loader.group(1)
    for name in ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"):
        path = pathlib.Path(found["libc.so.6"]).with_name(name)
        if path.exists():
            files[f"/lib/x86_64-linux-gnu/{name}"] = str(path)
    return files


def entry(name, mode, kind=tarfile.REGTYPE, owner=0):
    info = tarfile.TarInfo(name.lstrip("/"))
    info.mode, info.mtime, info.type, info.uid, info.gid = mode, MOMENT, kind, owner, owner
    return info


def layer(package, stage):
    program = stage / "usr/bin" / package
    contents = {f"/usr/bin/{package}": (program.read_bytes(), 0o755)}
    for name, path in libraries(program).items():
        contents[name] = (pathlib.Path(path).resolve().read_bytes(), 0o755)
    for path in sorted((stage / "usr/share/doc" / package).glob("*LICEN*")):
        contents[f"/usr/share/doc/{package}/{path.name}"] = (path.read_bytes(), 0o644)
    if CERTIFICATES.exists():
        contents[str(CERTIFICATES)] = (CERTIFICATES.read_bytes(), 0o644)
    contents["/etc/passwd"] = (b"root:x:0:0::/:/\nbackburn:x:65532:65532::/data:/\n", 0o644)
    contents["/etc/nsswitch.conf"] = (b"hosts: files dns\n", 0o644)
    folders = {str(parent) for name in contents for parent in pathlib.PurePosixPath(name).parents} - {"/"}
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder in sorted(folders):
            tar.addfile(entry(folder, 0o755, tarfile.DIRTYPE))
        tar.addfile(entry("/tmp", 0o1777, tarfile.DIRTYPE))
        tar.addfile(entry("/data" if package == "backburn" else "/state", 0o700, tarfile.DIRTYPE, 65532 if package == "backburn" else 0))
        for name, (content, mode) in sorted(contents.items()):
            info = entry(name, mode)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return raw.getvalue()


def compressed(content):
    """The same bytes for the same content: without a name, and with the moment of the release."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, compresslevel=9, mtime=MOMENT) as file:
        file.write(content)
    return packed.getvalue()


def blob(kind, content):
    """A part of an image, and how others refer to it."""
    digest = hashlib.sha256(content).hexdigest()
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}, (f"blobs/sha256/{digest}", content)


def main():
    package, stage, version, out = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], pathlib.Path(sys.argv[4])
    content = layer(package, stage)
    created = datetime.datetime.fromtimestamp(MOMENT, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    to_json = lambda value: json.dumps(value, sort_keys=True).encode()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": CONFIGS[package] | {"Labels": {"org.opencontainers.image.version": version, "org.opencontainers.image.licenses": "Apache-2.0"}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]},
        "history": [{"created": created, "created_by": "tests/release"}],
    }
    config, config_file = blob("application/vnd.docker.container.image.v1+json", to_json(config))
    content, content_file = blob("application/vnd.docker.image.rootfs.diff.tar.gzip", compressed(content))
    manifest_kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = {"schemaVersion": 2, "mediaType": manifest_kind, "config": config, "layers": [content]}
    manifest, manifest_file = blob(manifest_kind, to_json(manifest))
    manifest["annotations"] = {"org.opencontainers.image.ref.name": f"localhost/{package}:{version}", "io.containerd.image.name": f"localhost/{package}:{version}"}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]}
    layout = ("oci-layout", to_json({"imageLayoutVersion": "1.0.0"}))
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, part in (layout, ("index.json", to_json(index)), manifest_file, config_file, content_file):
            info = entry(name, 0o644)
            info.size = len(part)
            tar.addfile(info, io.BytesIO(part))
    out.write_bytes(raw.getvalue())


main()
