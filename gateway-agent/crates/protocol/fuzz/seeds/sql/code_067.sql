DO $$ BEGIN INSERT INTO scratch (t) SELECT secret FROM vault; END $$
