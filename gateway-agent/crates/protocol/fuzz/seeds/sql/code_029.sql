DO $$ BEGIN LOAD 'x'; END $$
