-- Version 4: runs that wait for approval. Such a run is open and has no events.

CREATE TABLE approvals (
    run TEXT NOT NULL PRIMARY KEY REFERENCES runs (id),
    person TEXT NOT NULL, -- who asked for it
    rule TEXT NOT NULL, -- of the controller's policy
    variables TEXT NOT NULL, -- JSON
    plan TEXT, -- JSON, as people are shown it; null for a run of version 1
    fingerprint TEXT, -- of the plan
    expires TEXT NOT NULL
) STRICT;
