-- Version 3: labels are granted, by a join token or by an admin.

-- Who granted the agent's labels; null: they are the agent's own words of a time before labels were granted.
ALTER TABLE agents ADD COLUMN labels_by TEXT;
-- JSON; null: none
ALTER TABLE join_tokens ADD COLUMN labels TEXT;
