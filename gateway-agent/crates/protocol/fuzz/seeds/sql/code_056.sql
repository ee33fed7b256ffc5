DO $$ BEGIN ASSERT false, (SELECT secret FROM vault LIMIT 1); END $$
