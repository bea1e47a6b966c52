-- Version 2: tokens belong to people, and people to teams.

ALTER TABLE api_tokens ADD COLUMN person TEXT; -- null means the token's name
ALTER TABLE api_tokens ADD COLUMN teams TEXT; -- JSON; null or empty means all
ALTER TABLE api_tokens ADD COLUMN origin TEXT; -- null means that an admin made it
