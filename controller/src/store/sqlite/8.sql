-- Version 8: notes of runs, added after their journals were sealed. The first note's `previous` is zeros.

CREATE TABLE run_notes (
    run INTEGER NOT NULL REFERENCES runs (number),
    number INTEGER NOT NULL CHECK (number > 0),
    at TEXT NOT NULL,
    who TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL, -- JSON
    previous TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (run, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX run_notes_by_kind ON run_notes (kind, run);
