DO $$ DECLARE c refcursor := 'k'; s text; BEGIN FETCH c INTO s; INSERT INTO scratch (t) VALUES (s); END $$
