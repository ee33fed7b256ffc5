DO $$ DECLARE s text; BEGIN s := secret FROM vault LIMIT 1; INSERT INTO scratch (t) VALUES (s); END $$
