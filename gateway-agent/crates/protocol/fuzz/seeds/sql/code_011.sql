DO $$ DECLARE r record := (SELECT s FROM secrets s LIMIT 1); BEGIN NULL; END $$
