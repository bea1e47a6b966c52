-- Version 7: when an agent was last heard; null: never, or before this version.
ALTER TABLE agents ADD COLUMN heard TEXT;
