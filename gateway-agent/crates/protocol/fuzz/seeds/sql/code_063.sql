DO $$ DECLARE r record; BEGIN FOR r IN SELECT secret FROM vault LOOP INSERT INTO scratch (t) VALUES (r.secret); END LOOP; END $$
