DO $$ DECLARE s text; BEGIN SELECT secret INTO s FROM vault LIMIT 1; INSERT INTO scratch (t) VALUES (s); END $$
