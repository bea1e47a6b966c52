-- Version 9: game days: their documents, those that are or were held, their notes, and tokens of participants.

CREATE TABLE game_day_documents (
    name TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    document TEXT, -- JSON; null where this version says that it was removed
    who TEXT NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (name, version)
) STRICT;

CREATE TABLE game_days (
    number INTEGER PRIMARY KEY, -- in the order in which they were prepared
    id TEXT NOT NULL UNIQUE,
    name TEXT, -- of the stored document; null if it came with the request
    version INTEGER,
    document TEXT NOT NULL, -- JSON, as it is held
    mode TEXT NOT NULL,
    who TEXT NOT NULL,
    person TEXT NOT NULL,
    prepared TEXT NOT NULL,
    ended TEXT,
    CHECK ((name IS NULL) = (version IS NULL))
) STRICT;
CREATE INDEX game_days_open ON game_days (number) WHERE ended IS NULL;

CREATE TABLE game_day_notes (
    game_day INTEGER NOT NULL REFERENCES game_days (number),
    number INTEGER NOT NULL CHECK (number > 0),
    at TEXT NOT NULL,
    who TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL, -- JSON
    previous TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (game_day, number)
) STRICT, WITHOUT ROWID;

-- The runs of steps, each written before the run is opened. A run may be forgotten later.
CREATE TABLE game_day_runs (
    run TEXT NOT NULL PRIMARY KEY,
    game_day TEXT NOT NULL REFERENCES game_days (id),
    step INTEGER NOT NULL CHECK (step > 0)
) STRICT;
CREATE INDEX game_day_runs_by_step ON game_day_runs (game_day, step);

ALTER TABLE api_tokens ADD COLUMN blind TEXT; -- `yes` for participants who may not know what a game day does; else null
