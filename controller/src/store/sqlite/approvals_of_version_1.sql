
-- Version 1 had the pending approvals in a setting, and their runs nowhere.
INSERT INTO runs (id, experiment, version, title, seed, who, because, started)
SELECT
    json_extract(one.value, '$.id'), experiments.name, experiments.version,
    COALESCE(json_extract(experiments.document, '$.title'), ''),
    CAST(json_extract(one.value, '$.seed') AS TEXT), json_extract(one.value, '$.who'), 'asked',
    json_extract(one.value, '$.at')
FROM settings, json_each(settings.value) AS one, experiments
WHERE settings.name = 'approvals' AND one.type = 'object'
    AND experiments.name = json_extract(one.value, '$.experiment')
    AND experiments.version = json_extract(one.value, '$.version');

INSERT INTO approvals (run, person, rule, variables, expires)
SELECT
    runs.id, runs.who, json_extract(one.value, '$.rule'),
    COALESCE(json_extract(one.value, '$.variables'), '{}'),
    COALESCE(strftime('%Y-%m-%dT%H:%M:%SZ', runs.started, '+1 day'), runs.started)
FROM settings, json_each(settings.value) AS one, runs
WHERE settings.name = 'approvals' AND one.type = 'object' AND runs.id = json_extract(one.value, '$.id');

DELETE FROM settings WHERE name = 'approvals';
