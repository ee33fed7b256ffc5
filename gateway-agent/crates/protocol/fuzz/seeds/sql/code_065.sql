DO $$ DECLARE c CURSOR FOR SELECT secret FROM vault; s text; BEGIN OPEN c; FETCH c INTO s; INSERT INTO scratch (t) VALUES (s); END $$
