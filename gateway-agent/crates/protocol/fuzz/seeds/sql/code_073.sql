DO $$ BEGIN IF EXISTS (SELECT FROM vault WHERE secret LIKE 'Z%') THEN UPDATE scratch SET t = 'yes'; END IF; END $$
