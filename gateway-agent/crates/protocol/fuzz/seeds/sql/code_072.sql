DO $$ BEGIN IF (SELECT secret FROM vault LIMIT 1) LIKE 'Z%' THEN UPDATE scratch SET t = 'yes'; END IF; END $$
