-- Experiments and runs belong to teams.

CREATE TABLE owners (
    what TEXT NOT NULL, -- experiment or run
    id TEXT NOT NULL,
    teams TEXT NOT NULL, -- JSON
    PRIMARY KEY (what, id)
) STRICT, WITHOUT ROWID;
