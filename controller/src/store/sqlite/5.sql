-- Version 5: secrets that documents write out are stored apart from them. Stored documents are separated when this step runs.

CREATE TABLE experiment_secrets (
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    secrets TEXT NOT NULL, -- JSON: each secret by the JSON path of its place
    PRIMARY KEY (name, version),
    FOREIGN KEY (name, version) REFERENCES experiments (name, version)
) STRICT;
