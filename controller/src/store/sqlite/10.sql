-- Version 10: actions that came of runs, as the changes that made them what they are. An action's number is that of its first change.

CREATE TABLE action_changes (
    number INTEGER PRIMARY KEY CHECK (number > 0),
    action INTEGER NOT NULL,
    at TEXT NOT NULL,
    who TEXT NOT NULL,
    change TEXT NOT NULL -- JSON
) STRICT;
