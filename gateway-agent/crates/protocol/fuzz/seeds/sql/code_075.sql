DO $$ BEGIN PERFORM secret::int FROM vault; EXCEPTION WHEN others THEN UPDATE scratch SET t = 'no'; END $$
