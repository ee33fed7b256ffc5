DO $$ BEGIN PERFORM pg_terminate_backend(1); END $$
