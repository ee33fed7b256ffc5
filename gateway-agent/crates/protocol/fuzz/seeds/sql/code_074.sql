DO $$ BEGIN PERFORM FROM vault WHERE secret LIKE 'Z%'; IF FOUND THEN UPDATE scratch SET t = 'yes'; END IF; END $$
