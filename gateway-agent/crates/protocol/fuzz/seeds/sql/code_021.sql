DO $$ BEGIN CALL made(); END $$
