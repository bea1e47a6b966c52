-- Version 1. Times are RFC 3339 text as given; JSON is the text that was given, on one line.

CREATE TABLE experiments (
    name TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    document TEXT, -- JSON; null where this version says that it was removed
    who TEXT NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (name, version)
) STRICT;

CREATE TABLE runs (
    number INTEGER PRIMARY KEY, -- in the order in which they were opened
    id TEXT NOT NULL UNIQUE,
    experiment TEXT,
    version INTEGER,
    title TEXT NOT NULL,
    seed TEXT NOT NULL, -- 64 bits without a sign, which an INTEGER has not room for
    who TEXT NOT NULL,
    because TEXT NOT NULL,
    started TEXT NOT NULL,
    ended TEXT,
    outcome TEXT,
    verdict TEXT, -- JSON
    FOREIGN KEY (experiment, version) REFERENCES experiments (name, version),
    CHECK ((experiment IS NULL) = (version IS NULL)),
    CHECK ((ended IS NULL) = (outcome IS NULL)),
    CHECK ((ended IS NULL) = (verdict IS NULL))
) STRICT;
CREATE INDEX runs_open ON runs (number) WHERE ended IS NULL;
CREATE INDEX runs_by_experiment ON runs (experiment, number);
CREATE INDEX runs_by_outcome ON runs (outcome, number);

CREATE TABLE events (
    run INTEGER NOT NULL REFERENCES runs (number),
    number INTEGER NOT NULL CHECK (number > 0),
    entry TEXT NOT NULL, -- JSON
    PRIMARY KEY (run, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE agents (
    name TEXT NOT NULL PRIMARY KEY,
    serials TEXT NOT NULL, -- JSON
    labels TEXT NOT NULL, -- JSON
    enrolled TEXT NOT NULL,
    revoked TEXT
) STRICT;

CREATE TABLE join_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    hash TEXT NOT NULL,
    who TEXT NOT NULL,
    expires TEXT NOT NULL,
    agent TEXT
) STRICT;

CREATE TABLE api_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    hash TEXT NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    created TEXT NOT NULL,
    expires TEXT,
    revoked TEXT
) STRICT;

CREATE TABLE settings (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL -- JSON
) STRICT;

CREATE TABLE audit (
    number INTEGER PRIMARY KEY CHECK (number > 0),
    at TEXT NOT NULL,
    who TEXT NOT NULL,
    role TEXT,
    what TEXT NOT NULL,
    about TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL, -- JSON
    previous TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
