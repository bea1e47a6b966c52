"""Writes what the programs are made of: an SBOM (CycloneDX 1.5, JSON) and the licences of all crates in one file.

usage: inventory.py --target TARGET --version VERSION --sbom FILE --licences FILE
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import tomllib
import uuid

PROGRAMS = ("backburn", "backburn-agent")


def crates(target):
    """The crates that the programs are built from, by their ids, with the edges between them."""
    words = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    metadata = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    edges, todo = {}, [key for key, package in packages.items() if package["name"] in PROGRAMS]
    while todo:
        key = todo.pop()
        if key in edges:
            continue
        # Tests are not released; what build scripts use is listed, since it shapes what is built.
        kinds = lambda dep: {kind["kind"] for kind in dep["dep_kinds"]}
        edges[key] = sorted(dep["pkg"] for dep in nodes[key]["deps"] if kinds(dep) != {"dev"})
        todo.extend(edges[key])
    return {key: packages[key] for key in sorted(edges)}, edges


def checksums():
    """The SHA-256 of each crate in Cargo.lock, by name and version."""
    lock = tomllib.loads(pathlib.Path("Cargo.lock").read_text())
    return {(p["name"], p["version"]): p["checksum"] for p in lock["package"] if "checksum" in p}


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, sums):
    own = {
        "type": "application" if package["name"] in PROGRAMS else "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
    }
    if package.get("license"):
        # Slashes were an `OR` before SPDX expressions.
        own["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = sums.get((package["name"], package["version"]))
    if checksum:
        own["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package.get("repository"):
        own["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return own


def sbom(packages, edges, version):
    sums = checksums()
    moment = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), datetime.timezone.utc)
    components = [component(package, sums) for package in packages.values()]
    names = json.dumps([entry["bom-ref"] for entry in components])
    dependencies = [
        {"ref": reference(packages[key]), "dependsOn": sorted({reference(packages[to]) for to in edges[key]})} for key in packages
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, names + version)}",
        "version": 1,
        "metadata": {
            "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {"type": "application", "bom-ref": "backburn-release", "name": "backburn", "version": version},
        },
        "components": components,
        "dependencies": dependencies,
    }


def licence_files(package):
    folder = pathlib.Path(package["manifest_path"]).parent
    begins = ("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE")
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name.upper().startswith(begins))


def licences(packages):
    """All texts, each once, below the crates that have it."""
    texts, without = {}, []
    for package in packages.values():
        if package["source"] is None:
            continue
        name = f"{package['name']} {package['version']} ({package.get('license') or 'see its files'})"
        files = licence_files(package)
        if not files:
            without.append(name)
        for path in files:
            text = path.read_text(encoding="utf-8", errors="replace").strip()
            texts.setdefault(text, []).append(name)
    parts = ["Licences of the crates that Backburn is built from\n"]
    for text, names in sorted(texts.items(), key=lambda item: sorted(item[1])):
        parts.append("=" * 80 + "\n" + "\n".join(sorted(set(names))) + "\n" + "-" * 80 + "\n" + text + "\n")
    if without:
        parts.append("=" * 80 + "\nWithout a text of their own; the licence is the one named\n" + "\n".join(sorted(without)) + "\n")
    return "\n".join(parts)


def main():
    parser = argparse.ArgumentParser()
    for flag in ("--target", "--version", "--sbom", "--licences"):
        parser.add_argument(flag, required=True)
    given = parser.parse_args()
    packages, edges = crates(given.target)
    document = sbom(packages, edges, given.version)
    pathlib.Path(given.sbom).write_text(json.dumps(document, indent=1) + "\n")
    pathlib.Path(given.licences).write_text(licences(packages))


main()
