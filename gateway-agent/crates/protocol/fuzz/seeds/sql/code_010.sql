DO $$ DECLARE n int := (SELECT id FROM secrets LIMIT 1); BEGIN NULL; END $$
