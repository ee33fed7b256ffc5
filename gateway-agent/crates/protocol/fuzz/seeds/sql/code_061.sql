DO $$ DECLARE r record := (SELECT v FROM vault v LIMIT 1); BEGIN INSERT INTO scratch (t) VALUES (r.secret); END $$
