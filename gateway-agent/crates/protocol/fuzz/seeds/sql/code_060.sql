DO $$ DECLARE s text := (SELECT secret FROM vault LIMIT 1); BEGIN INSERT INTO scratch (t) VALUES (s); END $$
