CREATE FUNCTION made() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF NEW.secret > ''M'' THEN UPDATE scratch SET t = ''yes''; END IF; RETURN NEW; END'
