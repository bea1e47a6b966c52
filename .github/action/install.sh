#!/usr/bin/env bash
# Installs the program, if its checksum is the expected one.
set -euo pipefail

if [[ -z ${BACKBURN_URL:-} ]]; then
    if ! command -v backburn >/dev/null; then
        echo '::error title=Backburn::there is no backburn on this runner; give the inputs url and sha256'
        exit 2
    fi
    backburn --version
    exit 0
fi
if [[ ! ${BACKBURN_SHA256:-} =~ ^[0-9a-f]{64}$ ]]; then
    echo '::error title=Backburn::the input sha256 must have the 64 hexadecimal digits of the checksum'
    exit 2
fi
folder=$RUNNER_TEMP/backburn-bin
mkdir -p "$folder"
curl --fail --silent --show-error --location --retry 3 --proto '=https,file' --proto-redir '=https' --output "$folder/backburn.new" -- "$BACKBURN_URL"
if ! echo "$BACKBURN_SHA256  $folder/backburn.new" | sha256sum --check --status; then
    rm "$folder/backburn.new"
    echo '::error title=Backburn::the checksum of the program is not the expected one; nothing was installed'
    exit 2
fi
chmod 755 "$folder/backburn.new"
mv "$folder/backburn.new" "$folder/backburn"
echo "$folder" >>"$GITHUB_PATH"
"$folder/backburn" --version
