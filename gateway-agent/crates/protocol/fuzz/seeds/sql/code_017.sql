DO $$ BEGIN RAISE NOTICE '%', (SELECT count(*) FROM secrets); END $$
